"""Gradients by the used rows of embedding tables against those by the whole table."""

import pytest
import torch
from torch import nn

from mtlcli.training.backward.lookups import CompactTable, find_lookups, output_edge
from mtlcli.training.backward.loss_graphs import Walk

INDICES = [torch.tensor([[7, 2, 0], [2, 7, 7]]), torch.tensor([[2, 9]])]


def lookups_of(output, table):
    return find_lookups(Walk.of([output]).nodes, [table])


@pytest.mark.parametrize("padding", [None, 0, 7])
def test_inner_products_are_those_by_the_whole_table(padding):
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 3, padding_idx=padding, dtype=torch.float64)
    table = embedding.weight
    output = torch.cat([embedding(index).sin().sum(1) for index in INDICES])
    losses = [output.square().sum(), output[:2].exp().sum(), output[2].sum()]
    nodes = lookups_of(output, table)[id(table)]
    compact = CompactTable(table, nodes)
    assert compact.size == 8 and compact.stand_in.shape == (8, 3)
    rows, whole = [], []
    for loss in losses:
        gradients = torch.autograd.grad(loss, [*map(output_edge, nodes)], retain_graph=True, allow_unused=True)
        rows.append(compact.gradient(zip(nodes, gradients, strict=True)).flatten())
        whole.append(torch.autograd.grad(loss, table, retain_graph=True)[0].flatten())
    rows, whole = torch.stack(rows), torch.stack(whole)
    torch.testing.assert_close(rows @ rows.T, whole @ whole.T, rtol=1e-12, atol=1e-12)


def test_a_loss_without_the_lookups_has_no_gradient():
    embedding = nn.Embedding(20, 3)
    nodes = lookups_of(embedding(INDICES[0]), embedding.weight)[id(embedding.weight)]
    assert CompactTable(embedding.weight, nodes).gradient([(nodes[0], None)]) is None


@pytest.mark.parametrize("options", [{"scale_grad_by_freq": True}, {"sparse": True}])
def test_other_uses_of_a_table_are_no_lookups(options):
    embedding = nn.Embedding(20, 3)
    table = embedding.weight
    output = embedding(INDICES[0])
    assert list(lookups_of(output, table)) == [id(table)]
    assert not lookups_of(output @ table.T, table)
    assert not lookups_of(nn.Embedding(20, 3, _weight=table, **options)(INDICES[0]), table)
