"""Model folders from strangers: nothing in them runs, and each has one message and exit code 2."""

import json
import pickle
import struct
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mtlcli.cli import main
from tests.models.pretrained.model_folders import make_folder

EXPERIMENT = """\
datasets: {films: {name: table, path: films.csv, text: [text], targets: [good], val: 0.3}}
tasks: {good: {dataset: films, kind: binary}}
trunk: {name: transformers, model: model, max_length: 8}
training: {epochs: 1, batch_size: 4}
"""
EVIL = "import pathlib; pathlib.Path('ran').touch()\n"


class Evil:
    def __reduce__(self):
        return exec, (EVIL,)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{text},{good}" for text, good in [("good film", 1), ("bad plot", 0)] * 12]
    Path("films.csv").write_text("\n".join(["text,good", *(f"{i} {row}" for i, row in enumerate(rows))]))
    Path("run.yaml").write_text(EXPERIMENT)
    return make_folder(tmp_path / "model")


VALIDATE, TRAIN = ["validate", "run.yaml"], ["train", "run.yaml", "--run-dir", "run"]


def check(capsys, *messages, commands=(VALIDATE,)):
    """Check that commands report one problem."""
    for command in commands:
        assert main(command) == 2
        printed = capsys.readouterr().err
        assert printed.count("error: ") == 1, printed
        for message in messages:
            assert message in printed, printed
    assert not Path("ran").exists()


def test_a_sound_folder_is_accepted(folder, capsys):
    assert main(["validate", "run.yaml"]) == 0
    assert main(["train", "run.yaml", "--run-dir", "run"]) == 0
    assert "run folder" in capsys.readouterr().err


def test_a_pickle_is_not_read(folder, capsys):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    check(
        capsys, "trunk.model", "pytorch_model.bin is not read, since a pickle can run code", commands=[VALIDATE, TRAIN]
    )


def test_a_pickle_with_the_name_of_safetensors(folder, capsys):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    check(capsys, "trunk.model", "model.safetensors is not a safetensors file")


def test_code_of_the_models_own_is_not_run(folder, capsys):
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
        (folder / name).write_text(EVIL)
    auto_map = {"AutoConfig": "configuration_evil.C", "AutoModel": "modeling_evil.M"}
    edit(folder / "config.json", auto_map=auto_map)
    check(
        capsys,
        "trunk.model",
        "`auto_map` names code of the model's own, which is never run",
        commands=[VALIDATE, TRAIN],
    )
    edit(folder / "config.json", model_type="evil")
    check(capsys, "which is never run")


def test_adapters_and_attention_kernels_that_a_folder_names_are_ignored(folder, capsys):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/model"}))
    edit(folder / "config.json", _attn_implementation="evil/kernel", attn_implementation="evil/kernel")
    assert main(["validate", "run.yaml"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 2**40}, "hidden_size: 1099511627776 is too large"),
        ({"hidden_size": 2**30}, "too large"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 2}, "no bert can be built: Storage size"),
        ({"num_hidden_layers": 10**9}, "too many layers"),
        ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "no bert can be built"),
        ({"hidden_size": "x"}, "not a configuration of bert"),
        ({"hidden_act": "evil"}, "no bert can be built"),
        ({"model_type": "brt"}, "transformers has no `model_type` 'brt'. Did you mean"),
        ({"model_type": 3}, "transformers has no `model_type` 3"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantized"),
        ({"hidden_size": 16}, "weights of another shape than config.json"),
        ({"num_hidden_layers": 3}, "lacks weights of the model: encoder.layer.2."),
        ({"vocab_size": 5}, "model.safetensors has weights of another shape"),
    ],
)
def test_configurations(folder, capsys, monkeypatch, change, message):
    monkeypatch.setattr("mtlcli.training.assembly.build.MOST_TENSORS", 100)
    edit(folder / "config.json", **change)
    check(capsys, message)


@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 100_000, "\xff", '{"model_type": '])
def test_a_broken_configuration(folder, capsys, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    check(capsys, "trunk.model", "config.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "Evil"}}', "\xff"])
def test_a_broken_tokenizer(folder, capsys, content):
    (folder / "tokenizer.json").write_text(content, encoding="latin-1")
    check(capsys, "trunk.model", "tokenizer.json is not the file of a tokenizer")


def test_missing_files(folder, capsys):
    (folder / "tokenizer.json").unlink()
    check(capsys, "trunk.model", "tokenizer.json, the tokenizer of the model")
    (folder / "config.json").unlink()
    check(capsys, "trunk.model", "is not the folder of a model: no file config.json")


def test_missing_and_misshapen_weights(folder, capsys):
    state = load_file(folder / "model.safetensors")
    dense = state.pop("encoder.layer.1.output.dense.weight")
    save_file(state, folder / "model.safetensors")
    check(capsys, "trunk.model", "lacks weights of the model: encoder.layer.1.output.dense.weight")
    save_file({**state, "encoder.layer.1.output.dense.weight": dense[:4]}, folder / "model.safetensors")
    check(capsys, "weights of another shape than config.json: encoder.layer.1.output.dense.weight")


def test_a_header_that_lies(folder, capsys):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    check(capsys, "trunk.model", "model.safetensors is not a safetensors file")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + header)
    check(capsys, "model.safetensors is not a safetensors file")


def test_an_index_that_names_files_elsewhere(folder, capsys):
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check(capsys, "names no safetensors files of its folder")


def test_weights_in_several_files(folder, capsys):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in halves.items():
        save_file({name: state[name] for name in keys}, folder / file)
    index = {"weight_map": {name: file for file, keys in halves.items() for name in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert main(["validate", "run.yaml"]) == 0
    (folder / "b.safetensors").unlink()
    check(capsys, "lacks b.safetensors, which model.safetensors.index.json names")


def test_a_model_that_is_not_here(folder, capsys, monkeypatch):
    Path("run.yaml").write_text(EXPERIMENT.replace("model: model", "model: org/absent"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check(capsys, "no folder org/absent", "hf download org/absent --local-dir FOLDER")


def test_a_missing_library(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    check(capsys, "pip install 'mtlcli[text]'")


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
