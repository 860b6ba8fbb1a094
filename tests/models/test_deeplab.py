"""The trunk `torchvision` with the head `aspp` against torchvision's DeepLabV3."""

from __future__ import annotations

import pytest
import torch

from mtlcli.models.map_head import MapHead
from mtlcli.registry import heads, trunks
from tests.models.test_map_head import shake_


@pytest.mark.matrix
@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplabv3_resnet50_is_that_of_torchvision(output_stride):
    from torchvision.models import resnet50
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import deeplabv3_resnet50
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

    shape, classes = (3, 48, 64), 5
    torch.manual_seed(0)
    if output_stride == 8:
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes)
    else:
        backbone = IntermediateLayerGetter(
            resnet50(replace_stride_with_dilation=[False, False, True]), {"layer4": "out"}
        )
        theirs = DeepLabV3(backbone, DeepLabHead(2048, classes, (6, 12, 18)))
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            shake_(module)
    trunk = trunks["torchvision"].create(shape, model="resnet50", output="map", output_stride=output_stride)
    head = MapHead(heads["aspp"].create(trunk.features, classes, output_stride=output_stride), True, shape[1:])
    trunk.network.load_state_dict(theirs.backbone.state_dict())
    head.head.load_state_dict(theirs.classifier.state_dict())
    x = torch.randn(2, *shape)
    with torch.no_grad():
        ours, wanted = head.eval()(trunk.eval()(x)), theirs.eval()(x)["out"]
    assert trunk(x[:1]).shape == (1, 2048, *(size // output_stride for size in shape[1:]))
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max()
