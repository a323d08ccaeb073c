"""`info`: what a product is and what it came from, by its record and header alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nmlcli.errors import first
from nmlcli.products.container import NOUNS
from nmlcli.products.formats import TABLES, check_exists, open_container
from nmlcli.products.labels import read_labels
from nmlcli.products.tables import open_table, read_table_record
from nmlcli.products.vectors import VECTORS
from nmlcli.provenance import Facts, Record, layer_of


def describe(source: str) -> Facts:
    """All that can be seen of a product: its record's fields, `holds` (arrays or columns), `bytes`.

    Of a file without a record kind is None; a label table's noise is recounted from clean_label then.
    Raises InvalidInput where it is damaged, missing or of no format that nml reads.
    """
    if source != "-" and Path(source).suffix.lower() in TABLES:
        facts = _describe_table(str(check_exists(source)))
    elif source != "-" and Path(source).suffix.lower() in VECTORS:
        facts = _describe_vectors(str(check_exists(source)))
    else:
        container = open_container(source)
        arrays = container.tensors
        size = Path(container.path).stat().st_size if container.path else None
        holds = {name: str(tensor) for name, tensor in arrays.items()}
        facts = {**_of_record(container.record), "holds": holds, "bytes": size}
    return {"source": "stdin" if source == "-" else source, **facts}


def worded(facts: Facts) -> dict[str, str]:
    """The facts in words for people: what there is nothing to say about is left out."""
    model = facts["model"] or {}
    seed = "" if model.get("seed") is None else f"seed {model['seed']}"
    pretraining = (model.get("objective"), _name_of(model.get("data")), seed)
    is_network, labelled = facts["kind"] == "checkpoint", facts["kind"] or facts["noise"]
    words = {
        "file": facts["source"],
        "is": _what(facts),
        "made by": _command(facts),
        "identity": facts["identity"],
        "classes": _classes(facts["classes"]),
        "data": _name_of(facts["data"]),
        "noise of the labels": noise_in_words(facts["noise"]) if labelled else "",
        "network": "" if is_network else _named(model, "architecture", "name"),
        "its layer": "" if is_network else layer_of(model) or "",
        "pre-processing": _prepared(model.get("preprocessing")),
        "its pre-training": "" if is_network else ", ".join(str(part) for part in pretraining if part),
        "its labels' noise": "" if is_network or not model else noise_in_words(model.get("noise")),
        "came from": ", ".join(_parent(parent) for parent in facts["parents"]),
        "holds": _holds(facts["holds"]),
        "bytes": "" if facts["bytes"] is None else f"{facts['bytes']:,}",
    }
    return {name: text for name, text in words.items() if text}


def noise_in_words(noise: Facts | None) -> str:
    """A record's noise in words: `symmetric 20 % asked, 10 of 50 flipped (20.00 %), seed 0`."""
    if noise is None:
        return "not known"
    requested, realised = noise.get("requested"), noise.get("realised")
    if not requested and realised == 0:
        return "known clean"
    asked = f"{100 * requested:.6g} % asked" if isinstance(requested, (int, float)) else ""
    words = [f"{noise.get('kind') or 'kind not known'} {asked}".strip()]
    flipped, of = noise.get("flipped"), noise.get("of")
    if isinstance(flipped, int) and isinstance(of, int):
        words.append(f"{flipped:,} of {of:,} flipped")
    if isinstance(realised, (int, float)):
        words[-1] += f" ({100 * realised:.2f} %)"
    if noise.get("draw") not in (None, "exact"):
        words.append(f"{noise['draw']} draw")
    if noise.get("seed") is not None:
        words.append(f"seed {noise['seed']}")
    return ", ".join(words)


def differences(one: Facts, two: Facts) -> list[tuple[str, str, str]]:
    """What two products differ in: the field, and its value in each (`–` where it has none)."""
    left, right = dict(_flat("", one)), dict(_flat("", two))
    fields = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    return [(name, left.get(name, "–"), right.get(name, "–")) for name in fields if name != "source"]


def _prepared(facts: object) -> str:
    """What happens to a sample before the network: `size 224, interpolation bicubic, …`."""
    if not isinstance(facts, Mapping):
        return ""

    def shown(value: object) -> str:
        if isinstance(value, list | tuple):
            return "/".join(map(shown, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {shown(v)}" for name, v in facts.items() if v is not None)


def _describe_table(source: str) -> dict[str, Any]:
    record, columns = read_table_record(source), open_table(source).columns
    facts = _of_record(record)
    if record is None and "label" in columns:
        labels = read_labels(source)
        facts |= {"rows": len(labels.ids), "classes": list(labels.classes), "noise": labels.noise}
    size = Path(source).stat().st_size
    return {**facts, "holds": dict.fromkeys(columns, "column"), "bytes": size}


def _describe_vectors(source: str) -> dict[str, Any]:
    """Arrays by their headers; where one of them is a matrix, its rows and columns."""
    form = VECTORS[Path(source).suffix.lower()]
    arrays, facts = form.arrays(source), _of_record(form.record(source))
    matrices = [array.shape for array in arrays.values() if len(array.shape) == 2]
    if facts["kind"] is None and len(matrices) == 1:
        facts |= dict(zip(("rows", "columns"), matrices[0], strict=True))
    holds = {name: str(array) for name, array in arrays.items()}
    return {**facts, "holds": holds, "bytes": Path(source).stat().st_size}


def _of_record(record: Record | None) -> dict[str, Any]:
    fields = Record.__dataclass_fields__
    facts = {name: getattr(record, name) if record else None for name in fields}
    return {**facts, "parents": facts["parents"] or (), "options": facts["options"] or {}}


def _what(facts: Facts) -> str:
    noun = "a file without nml record" if facts["kind"] is None else NOUNS[facts["kind"]]
    trained = facts["kind"] in ("head", "checkpoint") and facts["rows"] is not None
    size = [f"{facts[name]:,} {name}" for name in ("rows", "columns") if facts[name] is not None]
    return ", ".join((noun, "trained on " * trained + " × ".join(size))) if size else noun


def _command(facts: Facts) -> str:
    if not facts["command"]:
        return ""
    given = [(name, value) for name, value in facts["options"].items() if value is not None]
    options = [f"{name}={_short(value)}" for name, value in given]
    return " ".join((f"nml {facts['command']} {facts['version']}:", *options)).removesuffix(":")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return first([str(item) for item in value])
    return str(value)


def _classes(names: Any) -> str:
    return f"{len(names):,}: {first(list(names))}" if names else ""


def _named(facts: Facts | None, *keys: str) -> str:
    """The first of these keys that is there, and the identity in short."""
    facts = facts or {}
    name = next((str(facts[key]) for key in keys if facts.get(key)), "")
    identity = str(facts.get("identity") or "")[:8]
    return f"{name} ({identity})" if name and identity else name or identity


def _name_of(data: Any) -> str:
    return _named(data if isinstance(data, Mapping) else None, "name")


def _parent(parent: Facts) -> str:
    return f"{NOUNS.get(parent['kind'], parent['kind'])} {parent['identity'][:8]} ({parent['command']})"


def _holds(held: Facts) -> str:
    return first([name if kind == "column" else f"{name} {kind}" for name, kind in held.items()], 6)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Facts as (dotted name, value in words); lists as one value."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif prefix == "parents":
        yield prefix, ", ".join(_parent(parent) for parent in value) or "–"
    elif isinstance(value, (list, tuple)):
        yield prefix, f"{len(value):,}: {first([str(item) for item in value])}"
    elif value not in (None, {}):
        yield prefix, str(value)
