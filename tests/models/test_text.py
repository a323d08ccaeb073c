"""Networks of texts: those of transformers itself, one text at a time, whatever is padded beside it."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

from nmlcli.errors import InvalidInput, NmlError, UsageError
from nmlcli.models import hub, text
from nmlcli.models.extraction import TextExtractor
from nmlcli.models.schemes import Wanted, identify_network, open_network, takes

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "book", "was", "good", "bad", "very", "not", ".", ","]
TEXTS = [
    "the book was good.", "a", "very, very bad", "", "the " * 40, "not good, not bad, not the book",
    "zebra", "naïve Ünïcode 本", "good book " * 3,
]  # fmt: skip
PAIRS = ["not bad", "the book", "", "a", "book " * 30, "", "was it?", "b", "good"]
MANY = [*SPECIAL, *map(str, range(395))]
SMALL = {"initializer_range": 0.3, "vocab_size": 300}
LIMITS = {"bert": 24, "roberta": 18, "gpt2": 16}  # RoBERTa's 20 places less two
POOLS = {
    "mean": lambda states: states.mean(0), "max": lambda states: states.amax(0),
    "cls": lambda states: states[0], "last": lambda states: states[-1],
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def bert(folder):
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, **SMALL,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")


def roberta(folder):
    config = transformers.RobertaConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, type_vocab_size=1, **SMALL,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)  # a head, and no pooler
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    byte_level(folder, tokens)


def gpt2(folder):
    config = transformers.GPT2Config(
        n_embd=16, n_layer=3, n_head=2, n_positions=16, bos_token_id=256, eos_token_id=256, **SMALL
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    byte_level(folder, ["<|endoftext|>"])


def byte_level(folder, special):
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=280, min_frequency=1, special_tokens=special)
    tokenizer.save_model(str(folder))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for write in (bert, roberta, gpt2):
        folder = made[write.__name__] = tmp_path_factory.mktemp("networks") / write.__name__
        folder.mkdir()
        torch.manual_seed(len(made))
        write(folder)
    return made


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of BERT's folder, to be damaged."""
    return shutil.copytree(folders["bert"], tmp_path / "copy")


def embedded(name, texts=TEXTS, pairs=None, batch=100, **wanted):
    extractor = TextExtractor(open_network(f"hf:{name}", Wanted(**wanted)), "fp32", "float32")
    tokens = extractor.tokenizer(texts, pairs)
    return np.concatenate([extractor(tokens[i : i + batch]) for i in range(0, len(tokens), batch)])


def expected(folder, layer, pool, pairs=None):
    """transformers' own, of one text after the other, without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for row, each in enumerate(TEXTS):
        second = None if pairs is None else [pairs[row]]
        kind = {"truncation": True, "max_length": LIMITS[folder.name], "return_tensors": "pt"}
        inputs = dict(tokenizer([each], second, **kind))
        if inputs["input_ids"].shape[1] == 0:
            inputs = {"input_ids": torch.tensor([[tokenizer.eos_token_id]])}
        with torch.inference_mode():
            states = module(**inputs, output_hidden_states=True).hidden_states[layer][0]
        rows.append(POOLS[pool](states).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("name", LIMITS)
def test_features_are_those_of_transformers(folders, name, layer, pool):
    features = embedded(folders[name], layer=str(layer), pool=pool)
    np.testing.assert_allclose(features, expected(folders[name], layer, pool), atol=1e-5)
    assert features.dtype == np.float32


def test_a_network_that_would_read_the_padding_is_refused(folder):
    config = transformers.FNetConfig(
        vocab_size=280, hidden_size=16, num_hidden_layers=2, intermediate_size=32,
        max_position_embeddings=16, tpu_short_seq_length=16,
    )  # fmt: skip
    config.save_pretrained(folder)
    with pytest.raises(InvalidInput, match=r"\(fnet\) cannot tell a text from what pads it"):
        open_network(f"hf:{folder}", Wanted(random_init=True))


@pytest.mark.parametrize("name", LIMITS)
def test_pairs_are_encoded_as_the_tokenizer_does(folders, name):
    features = embedded(folders[name], pairs=PAIRS)
    np.testing.assert_allclose(features, expected(folders[name], 3, "mean", PAIRS), atol=1e-5)
    assert np.abs(features - embedded(folders[name])).max() > 0.1


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_batches_are_padded_as_the_tokenizer_pads_on_the_right(folders, name):
    tokenizer = open_network(f"hf:{folders[name]}", Wanted()).preprocessing
    own = transformers.AutoTokenizer.from_pretrained(folders[name], padding_side="right")
    batch = own(TEXTS[:4], PAIRS[:4], padding=True, return_tensors="pt", truncation=False)
    found = tokenizer.batch(tokenizer(TEXTS[:4], PAIRS[:4]))
    assert found.keys() == batch.keys()
    assert all(torch.equal(found[each], batch[each]) for each in found)


@pytest.mark.parametrize("name", LIMITS)
def test_values_do_not_depend_on_what_is_beside_them(folders, name):
    whole = embedded(folders[name])
    for batch in (1, 2, 4):
        np.testing.assert_allclose(embedded(folders[name], batch=batch), whole, atol=1e-5)
    backwards = embedded(folders[name], texts=TEXTS[::-1])
    np.testing.assert_allclose(backwards[::-1], whole, atol=1e-5)


@pytest.mark.parametrize("name", LIMITS)
def test_long_texts_are_cut_where_the_network_ends_and_that_is_told_once(folders, name, caplog):
    tokenizer = open_network(f"hf:{folders[name]}", Wanted()).preprocessing
    with caplog.at_level("INFO", logger="nmlcli"):
        lengths = [len(each) for each in tokenizer(["a " * 500, "a", "b " * 500], None)]
        tokenizer(["a " * 500], None)
    assert max(lengths) == LIMITS[name] == tokenizer.facts()["max_length"]
    (said,) = caplog.messages
    assert said.startswith(f"2 of the first 3 texts are longer than {LIMITS[name]} tokens")


def test_the_tokenizers_own_limit_counts_and_its_own_padding_does_not(folder):
    whole = embedded(folder)
    own = {"model_max_length": 9, "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    network = open_network(f"hf:{folder}", Wanted())
    tokens = network.preprocessing(TEXTS, None)
    assert max(map(len, tokens)) == network.facts["preprocessing"]["max_length"] == 9
    batch = network.preprocessing.batch(tokens)
    assert (np.diff(batch["attention_mask"].numpy(), axis=1) <= 0).all()
    short = [row for row, each in enumerate(tokens) if len(each) < 9]
    np.testing.assert_allclose(embedded(folder)[short], whole[short], atol=1e-5)


def test_what_a_record_says(folders):
    network = open_network(f"hf:{folders['roberta']}", Wanted())
    assert network.facts == {
        "name": "roberta", "architecture": "roberta", "objective": None, "data": None, "noise": None,
        "seed": None, "identity": identify_network(f"hf:{folders['roberta']}", Wanted())[0],
        "layer": "hidden_state.3", "pool": "mean",
        "preprocessing": {"tokenizer": "RobertaTokenizer", "max_length": 18},
    }  # fmt: skip
    assert takes("hf:any") == ("texts",)
    assert not network.module.training
    other = open_network(f"hf:{folders['gpt2']}", Wanted(layer="0", pool="last"))
    assert (other.facts["layer"], other.facts["pool"]) == ("hidden_state.0", "last")


def test_an_encoder_with_a_decoder_is_used_alone(tmp_path, folders):
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=300,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.T5ForConditionalGeneration(config).eval()
    module.save_pretrained(tmp_path)
    shutil.copy(folders["bert"] / "vocab.txt", tmp_path)
    kind = {"tokenizer_class": "BertTokenizer", "model_max_length": 512}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kind))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = module.get_encoder()(input_ids=ids).last_hidden_state[0]
    features = embedded(tmp_path, TEXTS[:3])
    np.testing.assert_allclose(features[0], states.mean(0).numpy(), atol=1e-5)


def test_weights_are_float32_whatever_the_file_holds(folder):
    whole = embedded(folder)
    state = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        (folder / "config.json").write_text(json.dumps({**config, name: "float16"}))
        network = open_network(f"hf:{folder}", Wanted())
        assert {each.dtype for each in network.module.parameters()} == {torch.float32}
        np.testing.assert_allclose(embedded(folder), whole, atol=0.02)
        drawn = open_network(f"hf:{folder}", Wanted(random_init=True)).module
        value = drawn.get_parameter("encoder.layer.0.output.dense.weight").detach()
        assert (value != value.half().float()).any()  # drawn in float32, not rounded to half


def test_a_network_without_weights_follows_its_seed(folder):
    first = embedded(folder, random_init=True, seed=1)
    (folder / "model.safetensors").unlink()
    torch.rand(5)
    np.testing.assert_array_equal(embedded(folder, random_init=True, seed=1), first)
    assert np.abs(embedded(folder, random_init=True, seed=2) - first).max() > 0.1
    identities = {
        identify_network(f"hf:{folder}", Wanted(random_init=True, seed=seed))[0] for seed in (1, 1, 2)
    }
    assert len(identities) == 2


def test_identity_is_what_decides_the_features(folder):
    def identity():
        return identify_network(f"hf:{folder}", Wanted())[0]

    whole, files = identify_network(f"hf:{folder}", Wanted())
    assert {file.name for file in files} >= {"config.json", "vocab.txt", "model.safetensors"}
    (folder / "README.md").write_text("of no account")
    (folder / "pytorch_model.bin").write_bytes(b"not read beside safetensors")
    assert identity() == whole
    for name, content in (("vocab.txt", b"\nnew"), ("config.json", b" "), ("model.safetensors", b" ")):
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(old + content)
        assert identity() != whole
        (folder / name).write_bytes(old)
    (folder / "special_tokens_map.json").write_text("{}")
    assert identity() != whole
    assert identify_network("hf:a/b", Wanted())[0] != identify_network("hf:a/c", Wanted())[0]


def test_identity_needs_no_transformers(folders):
    program = (
        "import sys; from nmlcli.models.schemes import Wanted, identify_network\n"
        f"identify_network('hf:{folders['bert']}', Wanted())\n"
        "print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_pickle_of_weights_is_read_and_another_is_not(folder, tmp_path):
    whole = embedded(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(embedded(folder), whole)

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({**state, "harm": Harm()}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="no weights that can be read safely"):
        open_network(f"hf:{folder}", Wanted())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(InvalidInput):
        open_network(f"hf:{folder}", Wanted())
    assert not (tmp_path / "harm").exists()


def test_code_beside_weights_is_never_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.Config", "AutoModel": "own.Network"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": code}))
    (folder / "own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'harm')!r})")
    with pytest.raises(InvalidInput, match="is no network that transformers can build"):
        open_network(f"hf:{folder}", Wanted())
    assert not (tmp_path / "harm").exists()


def change_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def change_weights(change):
    def apply(folder):
        state = load_file(folder / "model.safetensors")
        save_file(change(state), folder / "model.safetensors", {"format": "pt"})

    return apply


def without(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_config(num_hidden_layers=4), "it lacks encoder.layer.3"),
        (change_config(num_hidden_layers=2), "it has besides encoder.layer.2"),
        (change_config(intermediate_size=31), "it has other shapes of encoder.layer.0"),
        (change_weights(lambda state: {f"other.{k}": v for k, v in state.items()}), "it lacks emb"),
        (change_config(model_type="no-such"), "is no network that transformers can build"),
        (change_config(hidden_size=15), "is no network that transformers can build"),
        (lambda folder: (folder / "config.json").write_text("{"), "is no network"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12"), "is no network"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "is no network"),
        (lambda folder: (folder / "vocab.txt").write_text("\n".join(MANY)), "its network 300"),
        (without("config.json"), "holds no config.json"),
        (without("vocab.txt"), "holds no tokenizer"),
        (without("model.safetensors"), "holds no weights"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit(folder, damage, words, capfd):
    damage(folder)
    with pytest.raises(InvalidInput) as caught:
        open_network(f"hf:{folder}", Wanted())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("layer", ["4", "-1", "last", "1.0", "²", ""])
def test_hidden_states_that_it_has_not(folders, layer):
    with pytest.raises(UsageError, match=r"give a number from 0 .* to 3"):
        open_network(f"hf:{folders['bert']}", Wanted(layer=layer))


def test_texts_have_no_size(folders):
    with pytest.raises(UsageError, match="leave out --size"):
        open_network(f"hf:{folders['bert']}", Wanted(size=32))


def test_nothing_is_said_but_by_us(folders, capfd):
    for name in LIMITS:
        embedded(folders[name])
        embedded(folders[name], random_init=True)
    assert capfd.readouterr() == ("", "")


def test_without_transformers_one_line_says_what_to_do(folders, monkeypatch):
    monkeypatch.delitem(sys.modules, "nmlcli.models.text")
    monkeypatch.delattr("nmlcli.models.text")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NmlError) as caught:
        open_network(f"hf:{folders['bert']}", Wanted())
    assert str(caught.value) == 'networks of texts need transformers: pip install "nmlcli[text]"'


def test_a_hub_out_of_reach_is_one_line_that_says_what_to_bring(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NmlError) as caught:
        open_network("hf:bert-large-uncased", Wanted())
    wrong = "bert-large-uncased cannot be fetched from the hub (it cannot be reached)"
    assert str(caught.value).startswith(f"{wrong}: bring its folder")


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/a", "a/b/c", "a b", ""])
def test_folders_that_are_not_there(name):
    with pytest.raises(InvalidInput, match="there is no folder"):
        identify_network(f"hf:{name}", Wanted())


@pytest.mark.parametrize(
    ("config", "width", "millions"),
    [
        (transformers.BertConfig(
            vocab_size=30522, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
            intermediate_size=4096,
        ), 1024, 335.1),
        (transformers.RobertaConfig(
            vocab_size=50265, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
            intermediate_size=4096, max_position_embeddings=514, type_vocab_size=1,
        ), 1024, 355.4),
        (transformers.GPT2Config(), 768, 124.4),
    ],
    ids=["bert-large-uncased", "roberta-large", "gpt2"],
)  # fmt: skip
def test_the_papers_networks_have_their_widths(config, width, millions):
    with torch.device("meta"):
        module = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    assert sum(each.numel() for each in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    ids = torch.ones(2, 7, dtype=torch.int64, device="meta")
    states = module(input_ids=ids, output_hidden_states=True)
    assert states.last_hidden_state.shape == (2, 7, width)
    assert len(states.hidden_states) == text._layer(config, None)[1] + 1
