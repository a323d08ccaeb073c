"""Rows that noise is put on, made by rule: for the tests of this folder."""

import hashlib

import numpy as np

from nmlcli.keyed import hash_ids
from nmlcli.noise.terms import Rows


def labelled(rows, num_classes, seed=None):
    """Rows of random labels, each class named; the classes are all there, some maybe without a row."""
    labels = np.random.default_rng(rows if seed is None else seed).integers(0, num_classes, rows)
    return rows_of([f"id {i}" for i in range(rows)], labels, num_classes)


def rows_of(ids, labels, num_classes):
    classes = tuple(f"class {i:04d}" for i in range(num_classes))
    return Rows(hash_ids(ids), np.asarray(labels, dtype=np.int64), "rows", classes)


def captioned(texts, images=None, ids=None):
    """Rows of captions; images: which image each is of, its own unless told."""
    names = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    images = range(len(texts)) if images is None else images
    return Rows(
        hash_ids(ids or [f"id {i}" for i in range(len(texts))]),
        np.array([names[text] for text in texts], dtype=np.int64), "captions",
        groups=np.array(list(images), dtype=np.int64),
        empty=np.array([not text.strip() for text in texts], dtype=np.bool_),
    )  # fmt: skip


def picked(rows, where):
    """Some of the rows, in another order."""
    from dataclasses import replace

    def of(values):
        return None if values is None else values[where]

    return replace(
        rows, hashes=of(rows.hashes), values=of(rows.values), groups=of(rows.groups),
        empty=of(rows.empty), places=of(rows.places),
    )  # fmt: skip


def digest(values):
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()[:16]
