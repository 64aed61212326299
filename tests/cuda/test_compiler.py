"""Compiling on first use: what is kept, when it is compiled anew, and what is said when a piece is missing."""

import enum
import os
import stat
import sys
import tempfile
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daukit.errors import CudaUnavailableError as Unavailable
from daukit.ops.cuda import cache, compiler, sources


@pytest.fixture
def kernel_folder(tmp_path, monkeypatch):
    """A folder with one small kernel in place of the kernels' own, and an empty cache."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "scale.cuh").write_text("#define FACTOR 2.f\n")
    (folder / "scale.cu").write_text(
        '#include "scale.cuh"\nextern "C" __global__ void scale(float* x) { x[threadIdx.x] *= FACTOR * TWICE; }\n'
    )
    monkeypatch.setattr(sources, "folder", lambda: folder)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return folder


class Result(enum.IntEnum):
    NVRTC_SUCCESS = 0
    NVRTC_ERROR_COMPILATION = 6


class FakeNvrtc(types.ModuleType):
    """Stands for ``cuda.bindings.nvrtc``; its binary tells what it was made of."""

    nvrtcResult = Result

    def __init__(self, version=(13, 5), fails=False):
        super().__init__("nvrtc")
        self.version, self.fails, self.compiled = version, fails, []

    def nvrtcVersion(self):
        return Result.NVRTC_SUCCESS, *self.version

    def nvrtcGetSupportedArchs(self):
        return Result.NVRTC_SUCCESS, [75, 80, 86, 90, 120]

    def nvrtcCreateProgram(self, source, name, *_):
        return Result.NVRTC_SUCCESS, [source, name]

    def nvrtcCompileProgram(self, program, _, options):
        self.compiled.append(options)
        program.append(b" ".join(options))
        return (Result.NVRTC_ERROR_COMPILATION if self.fails else Result.NVRTC_SUCCESS,)

    def nvrtcGetProgramLogSize(self, _):
        return Result.NVRTC_SUCCESS, len(self.log)

    log = b'scale.cu(2): error: identifier "TWICE" is undefined\n\0'

    def nvrtcGetProgramLog(self, _, buffer):
        buffer[:] = self.log
        return (Result.NVRTC_SUCCESS,)

    def nvrtcGetCUBINSize(self, program):
        return Result.NVRTC_SUCCESS, 4 + len(program[2])

    def nvrtcGetCUBIN(self, program, buffer):
        buffer[:] = b"\x7fELF" + program[2]
        return (Result.NVRTC_SUCCESS,)

    def nvrtcGetPTXSize(self, program):
        return Result.NVRTC_SUCCESS, 3 + len(program[2])

    def nvrtcGetPTX(self, program, buffer):
        buffer[:] = b"//" + program[2] + b"\0"
        return (Result.NVRTC_SUCCESS,)

    def nvrtcDestroyProgram(self, _):
        return (Result.NVRTC_SUCCESS,)


@pytest.fixture
def nvrtc(monkeypatch):
    fake = FakeNvrtc()
    monkeypatch.setattr(compiler, "load_nvrtc", lambda: fake)
    return fake


def compile_scale(**changes):
    return compiler.compile_kernel(**{"file": "scale.cu", "macros": {"TWICE": 2}, "capability": 90, **changes})


def test_a_kernel_is_compiled_once_and_then_read_from_the_cache(kernel_folder, nvrtc):
    first, second = compile_scale(), compile_scale()
    assert first == second and len(nvrtc.compiled) == 1
    options = nvrtc.compiled[0]
    assert b"--gpu-architecture=sm_90" in options and b"-DTWICE=2" in options
    assert f"--include-path={kernel_folder}".encode() in options


@pytest.mark.parametrize(
    "change", [{"macros": {"TWICE": 3}}, {"capability": 80}, {"options": ("--maxrregcount=64",)}, {"ptx": True}]
)
def test_other_options_are_compiled_anew(kernel_folder, nvrtc, change):
    compile_scale()
    compile_scale(**change)
    assert len(nvrtc.compiled) == 2


@pytest.mark.parametrize("name", ["scale.cu", "scale.cuh"])
def test_a_changed_source_or_header_is_compiled_anew(kernel_folder, nvrtc, name):
    compile_scale()
    (kernel_folder / name).write_text("// changed\n")
    compile_scale()
    assert len(nvrtc.compiled) == 2


def test_another_compiler_compiles_anew(kernel_folder, nvrtc):
    compile_scale()
    nvrtc.version = (13, 6)
    compile_scale()
    assert len(nvrtc.compiled) == 2


def kept_file():
    (kept,) = (cache.folder() / "kernels").iterdir()
    return kept


@pytest.mark.parametrize("damage", ["emptied", "cut", "flipped", "another's"])
def test_a_damaged_file_is_compiled_anew_once_and_never_given_to_a_gpu(kernel_folder, nvrtc, damage):
    binary = compile_scale()
    whole = kept_file().read_bytes()
    changed = {
        "emptied": b"",
        "cut": whole[:-1],
        "flipped": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "another's": b"\x7fELF and no digest before it, as former versions kept them",
    }
    kept_file().write_bytes(changed[damage])
    assert compile_scale() == binary and kept_file().read_bytes() == whole
    assert compile_scale() == binary and len(nvrtc.compiled) == 2


def test_many_that_start_at_once_leave_one_whole_file(kernel_folder, nvrtc):
    with ThreadPoolExecutor(8) as pool:
        (binary,) = set(pool.map(lambda _: compile_scale(), range(32)))
    before = len(nvrtc.compiled)
    assert compile_scale() == binary and len(nvrtc.compiled) == before and kept_file()


def test_a_cache_that_cannot_be_written_costs_time_only(kernel_folder, nvrtc, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    assert compile_scale() == compile_scale() and len(nvrtc.compiled) == 2


def test_the_folder_of_kernels_is_the_users_alone_also_where_many_share_the_one_above(kernel_folder, nvrtc, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    compile_scale()
    kernels = tmp_path / "cache" / "kernels"
    assert stat.S_IMODE(kernels.stat().st_mode) == 0o700
    kernels.chmod(0o777)  # a former version's, or somebody's mistake
    compile_scale()
    assert stat.S_IMODE(kernels.stat().st_mode) == 0o700 and len(nvrtc.compiled) == 1


@pytest.mark.parametrize("way", ["folder", "file", "link"])
def test_what_another_user_put_there_is_not_loaded(kernel_folder, nvrtc, monkeypatch, tmp_path, way):
    compile_scale()
    kernels = tmp_path / "cache" / "kernels"
    if way == "link":
        kernels.rename(tmp_path / "elsewhere")
        kernels.symlink_to(tmp_path / "elsewhere")
    elif way == "folder":
        monkeypatch.setattr(cache, "_user", lambda: os.getuid() + 1)
    else:
        whole = cache._is_foreign
        monkeypatch.setattr(cache, "_is_foreign", lambda state: stat.S_ISREG(state.st_mode) or whole(state))
    compile_scale()
    assert len(nvrtc.compiled) == 2


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.folder() == tmp_path / "daukit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "daukit"


def test_a_user_without_a_home_has_a_cache_among_temporary_files(monkeypatch, kernel_folder, nvrtc, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert compile_scale() == compile_scale() and len(nvrtc.compiled) == 1
    assert (tmp_path / f"daukit-{os.getuid()}" / "kernels").is_dir()


def test_a_compile_error_shows_the_file_the_options_and_the_compilers_words(kernel_folder, nvrtc):
    nvrtc.fails = True
    with pytest.raises(Unavailable, match=r'scale\.cu does not compile with .*sm_90[^$]* "TWICE" is undefined$'):
        compile_scale()
    assert not cache.folder().exists()


def test_without_cuda_bindings_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(
        Unavailable, match=r"cuda-bindings is not installed; pip install cuda-bindings nvidia-cuda-nvrtc"
    ):
        compiler.load_nvrtc()


def test_without_nvrtc_the_message_says_what_to_install(monkeypatch):
    def missing():
        raise RuntimeError("no libnvrtc.so.13\nsearched everywhere")

    fake = FakeNvrtc()
    fake.nvrtcVersion = missing
    bindings = types.ModuleType("cuda.bindings")
    bindings.nvrtc = fake
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    with pytest.raises(Unavailable, match=r"NVRTC cannot be loaded \(no libnvrtc.so.13\); pip install"):
        compiler.load_nvrtc()


@pytest.mark.parametrize(("capability", "expected"), [(75, 75), (86, 86), (87, 86), (89, 86), (90, 90), (121, 120)])
def test_the_target_is_the_newest_that_the_gpu_runs(capability, expected):
    assert compiler.target(capability, [70, 75, 80, 86, 90, 120]) == compiler.Target(expected)


def test_binaries_for_systems_on_a_chip_are_for_these_alone():
    assert compiler.target(89, [75, 80, 86, 87]) == compiler.Target(86)
    assert compiler.target(87, [75, 80, 86, 87]) == compiler.Target(87)
    assert compiler.target(103, [80, 90, 100, 101, 120]) == compiler.Target(100)
    assert compiler.target(103, [80, 90, 101]) == compiler.Target(90, ptx=True)


def test_for_a_gpu_that_is_newer_than_the_compiler_the_driver_compiles(kernel_folder, nvrtc):
    assert compiler.target(130, [75, 80, 120]) == compiler.Target(120, ptx=True)
    assert compiler.target(100, [75, 80, 120]) == compiler.Target(80, ptx=True)
    code = compile_scale(capability=130)
    assert code.startswith(b"//") and code.endswith(b"\0") and b"--gpu-architecture=compute_120" in code
    assert compile_scale(capability=130) == code and len(nvrtc.compiled) == 1


@pytest.mark.parametrize("capability", [70, 72, 61])
def test_a_gpu_too_old_is_refused_with_what_it_knows(capability):
    with pytest.raises(Unavailable, match=rf"capability {capability // 10}\.{capability % 10}.*knows 7\.0, 7\.5, 8\.0"):
        compiler.target(capability, [70, 75, 80, 86, 90, 120])


def test_sources_are_found_in_the_checkout_before_the_installed_copy(monkeypatch, tmp_path):
    checkout, installed = tmp_path / "checkout" / "daukit", tmp_path / "site-packages" / "daukit"
    copy, other = installed / "cuda_kernels", tmp_path / "site-packages" / "cuda"
    for folder in (checkout, copy, other):  # the last is another package's
        folder.mkdir(parents=True)
    package = types.SimpleNamespace(__path__=[str(checkout), str(installed)])
    monkeypatch.setitem(sys.modules, "daukit", package)
    find = sources.folder.__wrapped__
    with pytest.raises(Unavailable, match="was not installed"):
        find()
    (copy / sources.MARK).write_text("")
    assert find() == copy
    (checkout.parent / "cuda").mkdir()
    (checkout.parent / "cuda" / sources.MARK).write_text("")
    assert find() == checkout.parent / "cuda"
