# Every target sets itself up: it needs python3 with venv, and make.

PYTHON ?= python3
BIN := .venv/bin
RESULTS ?= demo-results
DATA ?= data
# Where torch comes from, for those who want another build of it: README.
TORCH_INDEX ?=
# Who may install Debian's packages.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
CHROMIUM := $(ROOT) apt-get install -y --no-install-recommends chromium
# Tests work on tiny tensors, with one thread each: they gain from processes. Four of them take 3 GB.
PYTEST = $(BIN)/python -m pytest -q
PARALLEL = -n auto --maxprocesses 4 --dist worksteal
SAMPLE := examples/fashion-mnist
MODEL := $(SAMPLE)/shallow_dau.safetensors
CPP := $(wildcard daukit/csrc/* cuda/* tests/cuda/emulator/*.h tests/cuda/emulator/*.cpp tests/cuda/emulator/*.cu)

# An editable install does not rebuild the C++ library by itself: .venv/installed depends on its sources. With a compiler at
# hand a missing library is an error; without one the dense path does the work, and says so.
NATIVE_CHECK = $(BIN)/python -c 'import daukit.ops as ops, shutil, sys; state = ops.backends()["native"]; \
	print("native kernels:", state); sys.exit(state != "available" and any(map(shutil.which, ("c++", "g++", "clang++"))))'

.PHONY: demo data test test-slow test-all test-gpu test-page gpu-static gpu-figures test-package docs bench sanitize schemas fuzz lint format clean

demo: .venv/installed ## the main job on the bundled trained checkpoint; results in demo-results/
	@mkdir -p $(RESULTS)
	$(BIN)/daukit info $(MODEL)
	$(BIN)/daukit evaluate $(MODEL) --data $(SAMPLE)
	$(BIN)/daukit prune $(MODEL) --thresholds 0,0.01,0.02,0.05,0.1,0.25 --data $(SAMPLE)
	$(BIN)/daukit prune $(MODEL) --threshold 0.05 --data $(SAMPLE) -o $(RESULTS)/pruned.safetensors --overwrite
	$(BIN)/daukit plot-offsets $(MODEL) -o $(RESULTS)/offsets.png --csv $(RESULTS)/offsets.csv --overwrite
	$(BIN)/daukit plot-offsets $(MODEL) --before $(SAMPLE)/start.safetensors -o $(RESULTS)/moves.png --overwrite
	$(BIN)/daukit erf $(MODEL) --size 64 --images 8 -o $(RESULTS)/erf.png --overwrite
	$(BIN)/daukit rescale $(MODEL) --remove-pool pool3 --mode exact --verify -o $(RESULTS)/dense.safetensors --overwrite
	$(BIN)/daukit report $(MODEL) --compare $(SAMPLE)/start.safetensors -o $(RESULTS)/report.html --overwrite
	@ls -l $(RESULTS)
	@printf '%s\n' '' 'Done. In $(RESULTS):' \
		'  offsets.png          where the units of each layer are (Fig. 6 and 7 of the paper)' \
		'  offsets.csv          the numbers behind that picture' \
		'  moves.png            how far they went while it was trained, and from where to where' \
		'  erf.png              what each layer effectively sees of its input (Fig. 8)' \
		'  pruned.safetensors   the network without its weakest 15 % of units; "daukit info" it, "daukit evaluate" it' \
		'  dense.safetensors    the network without its last pool, equal where the first one predicts' \
		'  report.html          a page of all this and more, to open in a browser' \
		'Open the page first. The command is $(BIN)/daukit; README.md says what to do with it.'

test: .venv/installed-dev ## the quick tests
	$(PYTEST) $(PARALLEL) -m "not slow and not gputools and not browser"

test-slow: .venv/installed-dev ## the slow tests
	$(PYTEST) $(PARALLEL) -m "slow and not gputools and not browser"

test-all: test test-slow ## all tests

# A machine with a GPU often has a torch of its own and no network: with both torch and pytest, nothing is installed.
HAS_GPU_TESTS = import torch, pytest, typer, safetensors, sys; sys.exit(not torch.cuda.is_available())
GPU_PYTHON = $(shell $(PYTHON) -c '$(HAS_GPU_TESTS)' 2>/dev/null && echo $(PYTHON) || echo $(BIN)/python)
test-gpu: ## the tests that need an NVIDIA GPU; docs/gpu.md
	@[ $(GPU_PYTHON) = $(PYTHON) ] || $(MAKE) .venv/installed-dev
	$(GPU_PYTHON) -m pytest -q tests/cuda/test_gpu.py

test-page: .venv/installed-page ## a report in a browser; installs Debian's package chromium where there is none
	@command -v chromium >/dev/null || $(CHROMIUM) || ($(ROOT) apt-get update && $(CHROMIUM))
	$(PYTEST) -m browser

gpu-static: .venv/installed-gputools ## gates on the CUDA kernels' machine code, without a GPU
	$(PYTEST) $(PARALLEL) -m gputools

gpu-figures: .venv/installed-gputools ## the figures that the gates look at; docs/performance.md explains them
	$(BIN)/python tests/cuda/static_figures.py

# A folder takes its name when it is complete, so what is there is not made again. Remove one to have it made anew.
data: $(DATA)/canvases $(DATA)/scenes $(DATA)/shaken ## data sets to train on, of Debian's packages; in data/, 660 MB
	@echo "Done. In $(DATA): canvases and scenes (examples/segmentation), shaken (examples/deblurring)"

$(DATA)/packages/%: | .venv/installed
	$(BIN)/python examples/data/fetch.py $* $@

$(DATA)/photographs: | $(DATA)/packages/gcompris-qt-data
	$(BIN)/python examples/data/photographs.py $| $@

$(DATA)/canvases: | $(DATA)/packages/dataset-fashion-mnist
	$(BIN)/python examples/segmentation/make_canvases.py $|/usr/share/datasets/fashion-mnist $@

$(DATA)/scenes: | $(DATA)/packages/tuxpaint-stamps-default $(DATA)/photographs
	$(BIN)/python examples/segmentation/make_scenes.py $(word 1,$|)/usr/share/tuxpaint/stamps $(word 2,$|) $@

$(DATA)/shaken: | $(DATA)/photographs
	$(BIN)/python examples/deblurring/make_shaken.py $| $@

$(DATA)/scenes192: | $(DATA)/packages/tuxpaint-stamps-default $(DATA)/photographs
	$(BIN)/python examples/segmentation/make_scenes.py $(word 1,$|)/usr/share/tuxpaint/stamps $(word 2,$|) $@ --size 192

IMAGES_classification := packages/dataset-fashion-mnist/usr/share/datasets/fashion-mnist
IMAGES_canvases := canvases
IMAGES_scenes := scenes
IMAGES_deeplab := scenes192
IMAGES_deblurring := shaken
# Trainings that are done are not done again. Times are taken anew: nothing else should run then.
study-%: .venv/installed ## a study of docs/results.md, as study-canvases: data, trainings, times and tables, in hours; in runs/
	$(if $(IMAGES_$*),,$(error there is no study $*; there are classification, canvases, scenes, deeplab and deblurring))
	$(MAKE) $(DATA)/$(firstword $(subst /usr/, ,$(IMAGES_$*)))
	$(BIN)/python examples/studies/run.py examples/studies/$*.toml $(DATA)/$(IMAGES_$*) runs/$* --jobs 2
	$(BIN)/python examples/studies/times.py examples/studies/$*.toml runs/$*
	$(BIN)/python examples/studies/tables.py examples/studies/$*.toml runs/$*

# The wheel is installed into a virtual environment of its own, which finds everything else in .venv.
test-package: .venv/installed-dev ## build the sdist and, of that, the wheel, and run the quick tests on the wheel, outside of this folder
	rm -rf build/package
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip install --quiet --disable-pip-version-check build twine
	build/package/venv/bin/python -m build --outdir build/package/dist .
	build/package/venv/bin/twine check --strict build/package/dist/*
	tar --extract --file build/package/dist/*.tar.gz --directory build/package
	build/package/venv/bin/pip install --quiet --disable-pip-version-check --no-deps build/package/dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(build/package/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	cd build/package && venv/bin/python -m pytest -q $(PARALLEL) -m "not slow and not gputools and not browser" daukit-*/tests

docs: .venv/installed-docs ## the documents and an API reference as a site in build/site; a broken link is an error
	$(BIN)/python docs/site.py build/site-source
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean
	@echo "Done. Open build/site/index.html"

bench: .venv/installed ## times of layers and networks beside 3x3 and 9x9 convolutions; docs/performance.md explains them
	$(BIN)/daukit bench

sanitize: .venv/installed-dev ## the operator cases on a library built with AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/cmake -S . -B build/sanitize -DDAUKIT_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release
	$(BIN)/cmake --build build/sanitize --parallel
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		$(BIN)/python tests/sanitized.py build/sanitize -q -p no:cacheprovider tests/test_ops_native.py -k within_the_bound

schemas: .venv/installed-dev ## derive the JSON schemas of --json from the results that commands print
	$(BIN)/python tests/schemas.py

fuzz: .venv/installed-dev ## broken files to the readers until stopped; `make fuzz SEED=7` repeats
	$(BIN)/python tests/fuzz.py $(SEED)

lint: .venv/installed-dev ## ruff, clang-format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/mypy

format: .venv/installed-dev ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

clean: ## remove everything that make made, but for data/ and runs/
	rm -rf .venv build $(RESULTS) .mypy_cache .ruff_cache .pytest_cache

.venv/installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard daukit/csrc/*)
	@echo "Setting up .venv: torch and what it needs, about 3 GB to download and 6 GB on disk (README: less without a GPU)"
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --disable-pip-version-check -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e .
	@$(NATIVE_CHECK)
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt pip --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group dev
	@touch $@

.venv/installed-page: .venv/installed-dev pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group page
	@touch $@

.venv/installed-docs: .venv/installed pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group docs
	@touch $@

.venv/installed-gputools: .venv/installed-dev pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group gputools
	@touch $@
