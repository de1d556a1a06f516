# Everything a fresh machine needs: Linux, Python 3.11+, make and git. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
PY = $(VENV)/bin/python
# Workers of the test suite, on two cores three: tests of processes wait a third of their time. Each computes on one
# thread: two that want all cores wait for each other most of the time.
JOBS ?= 3
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help findings quickstart test test-fast fuzz lint bench gpu soak memory tokenizers penalties boundaries readme screenshots docs package install dev sky clean
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: install  ## train, pack and score a small byte-level H-Net on this machine's own text (under 5 minutes)
	@$(VENV)/bin/niblick quickstart

test: dev  ## the whole suite
	@$(MAKE) --no-print-directory sky || echo "without SkyPilot: its tests will be skipped"
	@$(PYTEST) --durations=15

test-fast: dev  ## the inner loop: without the tests that train, kill or compile for real
	@$(PYTEST) -m "not slow"

fuzz: dev  ## 30,000 mutants of every kind of file that niblick reads: refused in a sentence, or read (5 minutes)
	@OMP_NUM_THREADS=1 $(PY) tests/fuzz/fuzzer.py 30000 1

lint: dev  ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

bench: dev  ## speed against peers, in one run; AGAINST=REV: beside another build of niblick
	@$(PY) benchmarks/$(if $(AGAINST),against.py $(AGAINST),bench.py)

gpu: dev  ## on a rented GPU: is it right, how fast, how good? (blocks of at most 9 minutes; QUICK=1: toy size, any machine)
	@$(PY) benchmarks/gpu_day.py $(if $(QUICK),--quick,--docs) $(BLOCKS)

soak: dev  ## kills, killed ranks and several writers at once, compared with what nobody disturbed (about an hour)
	@$(PY) benchmarks/soak.py --docs

memory: dev  ## memory of `niblick data prepare` on 2 GB, as bytes and as subwords (Linux; 6 GB of disk, 10 minutes)
	@$(PY) benchmarks/memory.py
	@$(PY) benchmarks/memory.py --tokenizer sp:1024

tokenizers: dev  ## the table of docs/data.md: one text as bytes and as subwords (about 10 minutes)
	@$(PY) benchmarks/tokenizers_table.py

penalties: dev  ## the table of docs/training.md: penalties and QAT, bytes and BPB with and without (about 15 minutes)
	@$(PY) benchmarks/penalties_table.py

boundaries: dev  ## the tables and pictures of docs/boundaries.md: what routers learned (about 20 minutes)
	@$(PY) benchmarks/boundaries_table.py

readme: dev  ## run the quickstart and put its output into README.md
	@$(PY) docs/update_readme.py

screenshots: dev  ## the pictures of README.md and docs/monitor.md: trains two small runs and looks at them (5 minutes)
	@$(PY) docs/screenshots.py

findings:  ## surprises in the libraries we stand on, each run again without niblick: which of them changed? (up to 33 minutes)
	@changed=; untried=; for script in findings/*.sh; do echo "== $$script"; code=0; sh $$script || code=$$?; \
	case $$code in 0) ;; 2) untried="$$untried $$script" ;; *) changed="$$changed $$script" ;; esac; done; \
	if [ -n "$$untried" ]; then echo "could not be tried:$$untried"; fi; \
	if [ -n "$$changed" ]; then echo "changed:$$changed"; exit 1; fi; \
	if [ -n "$$untried" ]; then exit 2; else echo "none has changed"; fi

docs: dev  ## the pages of docs/ as a site that needs no network: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet && echo build/site/index.html

package: dev  ## wheel and sdist into dist/, and a look at their metadata
	@$(VENV)/bin/pip install --quiet --constraint constraints.txt "build>=1.2" "twine>=6"
	@$(PY) -m build --outdir dist . && $(VENV)/bin/twine check --strict dist/*

install: $(VENV)/.installed  ## the package and what it needs, into .venv
dev: $(VENV)/.dev  ## the same with the tools for tests, lint and benchmarks

# torch first and pinned by itself: a looser request fetches gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "niblick needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing niblick into $(VENV) (once)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[report,mix]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(PIP) -e '.[dev]'
	@touch $@

# Apart: SkyPilot pins packages that the rest of niblick has newer.
sky: $(VENV)/sky/.installed  ## SkyPilot for its tests, in an environment of its own

$(VENV)/sky/.installed: | $(VENV)/.installed
	@$(PYTHON) -m venv $(VENV)/sky
	@$(VENV)/sky/bin/pip install --quiet --disable-pip-version-check 'skypilot>=0.10'
	@touch $@

clean:  ## remove the environment and caches (never runs or data)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
