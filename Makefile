PYTHON ?= python

.PHONY: check test man completions reference bench

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest

test:
	$(PYTHON) -m pytest

man completions reference:
	$(PYTHON) docs/make_reference.py $@

bench:
	for script in bench/*.py; do $(PYTHON) $$script || exit 1; done
