#!/usr/bin/env python3
"""Installs the C library, builds capi_test.c against the installation as a stranger would, and runs it.

Once with pkg-config and a C compiler, once with find_package. Then kills it while it writes, at several moments. Usage: capi_test.py BUILD_DIRECTORY
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def kill_at_many_moments(program, home, environment):
    """kill -9 after so many pieces of 100 rows: what was committed (each 4,096 tokens) is there, and the rest follows."""
    committed = 0
    for pieces in (0, 1, 40, 41, 42, 3, 45, 60, 39):
        with subprocess.Popen([program, home, "put"], stdout=subprocess.PIPE, text=True, env=environment) as process:
            begin = int(process.stdout.readline().split()[1])
            assert begin >= committed and begin % 64 == 0, (begin, committed)
            position = begin
            for _ in range(pieces):
                position = int(process.stdout.readline() or position)
            process.kill()
        committed = max(begin, position // 4096 * 4096)
    run(program, home, "put", "check", env=environment)


def main():
    build = sys.argv[1]
    work = tempfile.mkdtemp(prefix="capi_test.")
    try:
        first = os.path.join(work, "first")
        run("cmake", "--install", build, "--component", "capi", "--prefix", first)
        # An installation can be moved.
        prefix = os.path.join(work, "moved")
        os.rename(first, prefix)
        library = os.path.join(prefix, "lib")
        gguf = sorted(glob.glob(os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama*.gguf")))
        environment = dict(os.environ, PKG_CONFIG_PATH=os.path.join(library, "pkgconfig"), LD_LIBRARY_PATH=library)

        flags = run("pkg-config", "--cflags", "--libs", "longhold", env=environment).split()
        program = os.path.join(work, "capi_test")
        source = os.path.join(HERE, "capi_test.c")
        run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-D_DEFAULT_SOURCE", source, "-o", program, *flags, "-lm")
        assert run(program, os.path.join(work, "home"), *gguf[:1], env=environment) == "ok\n"

        kill_at_many_moments(program, os.path.join(work, "home3"), environment)

        # Without a directory its memories are those of the program.
        user = {**environment, "HOME": os.path.join(work, "user"), "LONGHOLD_HOME": ""}
        user.pop("XDG_DATA_HOME", None)
        run(program, "-", "put", env=user)
        assert "killed" in run(os.path.join(build, "longhold"), "list", env=user)

        project = os.path.join(work, "project")
        os.mkdir(project)
        with open(os.path.join(project, "CMakeLists.txt"), "w", encoding="utf-8") as file:
            file.write("cmake_minimum_required(VERSION 3.20)\nproject(stranger C)\n"
                       "find_package(longhold 0.1 REQUIRED)\n"
                       f"add_executable(stranger {source})\n"
                       "target_link_libraries(stranger PRIVATE longhold::longhold m)\n")
        tree = os.path.join(work, "tree")
        run("cmake", "-S", project, "-B", tree, f"-DCMAKE_PREFIX_PATH={prefix}")
        run("cmake", "--build", tree)
        assert run(os.path.join(tree, "stranger"), os.path.join(work, "home2")) == "ok\n"

        # Nothing but the header's functions is exported.
        symbols = run("nm", "-D", "--defined-only", os.path.join(library, "liblonghold.so"))
        names = [line.split()[-1].split("@")[0] for line in symbols.splitlines()]
        foreign = [name for name in names if not name.startswith("lh_") and not name.startswith("LONGHOLD_")]
        assert not foreign, foreign
        with open(os.path.join(prefix, "include", "longhold.h"), encoding="utf-8") as file:
            header = file.read()
        unknown = [name for name in names if name.startswith("lh_") and f" {name}(" not in header
                   and f"* {name}(" not in header]
        assert not unknown, unknown
    finally:
        shutil.rmtree(work, ignore_errors=True)


main()
