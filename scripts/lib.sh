# shellcheck shell=bash
# Shared by the scripts beside it; source it, do not run it. Everything here works as root or as an ordinary user with
# sudo, with or without a terminal, with stdin closed, in any locale, and does nothing when its result is already there.

export LC_ALL=C.UTF-8
LONGHOLD_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
LONGHOLD_CACHE="${LONGHOLD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/longhold}"
export LONGHOLD_ROOT LONGHOLD_CACHE
# Debian's own interpreter: the one that apt installs numpy and pip for (a pyenv earlier in PATH is another one).
if [[ -z "${LONGHOLD_PYTHON:-}" ]]; then
  LONGHOLD_PYTHON=/usr/bin/python3
fi
export LONGHOLD_PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# ---------------------------------------------------------------------------------------------------- messages

# note TEXT...: one progress line. Progress goes to stderr, as in longhold itself: stdout is data.
note() { printf '%s\n' "$*" >&2; }

# die WHAT NEXT: ends the script with one line that names the thing and one with the next step.
die() {
  printf 'longhold: %s\n    next: %s\n' "$1" "$2" >&2
  exit 1
}

{ mkdir -p "$LONGHOLD_CACHE/log" && [[ -w "$LONGHOLD_CACHE/log" ]]; } 2>/dev/null ||
  die "cannot write to the cache directory $LONGHOLD_CACHE" "name another: LONGHOLD_CACHE=DIR, or make this one yours"
LONGHOLD_CACHE="$(cd "$LONGHOLD_CACHE" && pwd -P)"

# plan N: the script has N steps; step TEXT then prints "[i/N] TEXT".
STEP_COUNT=0
STEP_INDEX=0
plan() { STEP_COUNT=$1; STEP_INDEX=0; }
step() {
  STEP_INDEX=$((STEP_INDEX + 1))
  note "[$STEP_INDEX/$STEP_COUNT] $*"
}

# show_log_end FILE: what a person needs from the log of a failed command: its errors, else its last lines.
show_log_end() {
  local errors
  errors="$(grep -n -E '(^|[^a-z_])(error|ERROR|FAILED|E):' "$1" | head -n 12 || true)"
  { if [[ -n "$errors" ]]; then printf '%s\n' "$errors"; else tail -n 20 "$1"; fi; } | cut -c1-300 >&2
  note "    full log: $1"
}

# run_logged LOG COMMAND...: output goes to the log only; on failure the log's errors are shown and 1 is returned.
run_logged() {
  local log="$1"
  shift
  if ! "$@" >"$log" 2>&1 </dev/null; then
    show_log_end "$log"
    return 1
  fi
}

# ninja_progress LOG: copies a ninja output on stdin to the log and shows how far it is: a live percentage on a
# terminal, otherwise one line at each quarter.
ninja_progress() {
  local log="$1" line percent quarter=0
  : >"$log"
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ "$line" =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
    percent=$((100 * BASH_REMATCH[1] / BASH_REMATCH[2]))
    if [[ -t 2 ]]; then
      printf '\r      %3d%% (%d of %d)  ' "$percent" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" >&2
    elif ((BASH_REMATCH[2] > 20 && percent / 25 > quarter)); then
      quarter=$((percent / 25))
      note "      $percent% (${BASH_REMATCH[1]} of ${BASH_REMATCH[2]})"
    fi
  done
  if [[ -t 2 ]]; then printf '\r%40s\r' '' >&2; fi
}

# run_ninja LOG BUILD_DIR TARGET...
run_ninja() {
  local log="$1" dir="$2"
  shift 2
  if ! ninja -C "$dir" -j "$(job_count)" "$@" 2>&1 </dev/null | ninja_progress "$log"; then
    show_log_end "$log"
    return 1
  fi
}

# job_count: compile jobs: one per core, and at least 1.5 GB of memory each (RocksDB and Boost headers take about 1 GB).
job_count() {
  local cores memory_kb jobs
  cores="$(nproc)"
  memory_kb="$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)"
  jobs=$((${memory_kb:-3000000} / 1500000))
  ((jobs < cores)) || jobs="$cores"
  ((jobs > 0)) || jobs=1
  printf '%s\n' "$jobs"
}

# ---------------------------------------------------------------------------------------------------- guards

# need_space DIR MB WHAT: checks before the work starts that DIR's file system has room for it.
need_space() {
  local dir="$1" need_mb="$2" what="$3" free_mb
  while [[ ! -d "$dir" ]]; do dir="$(dirname "$dir")"; done
  free_mb=$(($(df -Pk "$dir" | awk 'NR == 2 { print $4 }') / 1024))
  ((free_mb >= need_mb)) ||
    die "disk too small: $what needs $need_mb MB, the disk of $dir has $free_mb MB free" \
      "free some space, or name a directory on a larger disk: LONGHOLD_CACHE=DIR (downloads), LONGHOLD_HOME=DIR (memories)"
}

# with_lock FILE COMMAND...: two scripts at once wait for each other instead of working on the same files.
with_lock() {
  local file="$1"
  shift
  (
    if ! flock -n 9; then
      note "      waiting for another longhold script (lock $file) ..."
      flock 9
    fi
    "$@"
  ) 9>"$file"
}

# verify_sha256 FILE EXPECTED: removes a wrong file, so that the next run fetches it anew.
verify_sha256() {
  local actual
  actual="$(sha256sum "$1" | cut -d' ' -f1)"
  if [[ "$actual" != "$2" ]]; then
    rm -f "$1"
    die "checksum of $(basename "$1") differs: expected $2, got $actual" \
      "run the script again; if it differs again, the package source or something between here and there changed the file: do not use it"
  fi
}

# ---------------------------------------------------------------------------------------------------- Debian packages

# What the build, the demo and a run need. librocksdb-dev itself depends on every -dev package that its CMake file asks
# for (gflags, snappy, zlib, bz2, lz4, zstd); they are not repeated here. libfaiss-dev takes any BLAS: OpenBLAS, because
# the reference one is slow, in its serial build, because that starts no threads of its own (and is entered by one at a time).
APT_BUILD=(build-essential cmake ninja-build ccache pkg-config ca-certificates python3 python3-pip
  librocksdb-dev libzstd-dev libxxhash-dev libssl-dev libboost1.81-dev libboost-json1.81-dev
  libflatbuffers-dev flatbuffers-compiler libgtest-dev libgmock-dev libcli11-dev libtomlplusplus-dev bible-kjv
  libfaiss-dev libopenblas-serial-dev librsvg2-dev prometheus-cpp-dev)
# What the tests need on top: numpy and yaml for the gguf module that writes tiny models; valgrind to count instructions.
APT_TEST=(python3-numpy python3-yaml valgrind libbenchmark-dev)
# What the wheel needs on top: it is tried out in an empty environment.
APT_WHEEL=(python3-venv)

# apt_missing PACKAGE...: prints those that are not installed.
apt_missing() {
  local package
  for package in "$@"; do
    # shellcheck disable=SC2016  # ${...} is dpkg-query's own syntax
    [[ "$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | head -n 1)" == installed ]] ||
      printf '%s\n' "$package"
  done
}

# as_root COMMAND...: runs it as root; asks for the password only when there is somebody to ask.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  elif command -v sudo >/dev/null && { : </dev/tty; } 2>/dev/null; then
    sudo "$@"
  else
    return 77
  fi
}

apt_run() {
  as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -y -q -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"
}

# ensure_packages PACKAGE...: no network and no root when all are there.
ensure_packages() {
  local missing log="$LONGHOLD_CACHE/log/apt.log" remove=--no-remove update_failed='' rc=0
  command -v dpkg-query >/dev/null ||
    die "this is not a Debian system (no dpkg-query)" "use Debian 12, or install the equivalents of: $*"
  mapfile -t missing < <(apt_missing "$@")
  if ((${#missing[@]} == 0)); then
    step "Debian packages: all there"
    return
  fi
  step "Debian packages: installing ${#missing[@]} (${missing[*]}) ..."
  need_space /usr 1200 "installing Debian packages"
  as_root true </dev/null || die "${#missing[@]} Debian packages are missing and this user cannot become root" \
    "run as root: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  [[ -z "${LONGHOLD_APT_REMOVE:-}" ]] || remove=--auto-remove
  apt_run update --error-on=any >"$log" 2>&1 </dev/null || update_failed=yes
  apt_run install --no-install-recommends "$remove" "${missing[@]}" >>"$log" 2>&1 </dev/null || rc=$?
  ((rc != 0)) || return 0
  show_log_end "$log"
  if grep -q 'Unable to locate package\|has no installation candidate' "$log" && [[ -z "$update_failed" ]]; then
    die "Debian packages not offered here: $(sed -n 's/^E: Unable to locate package //p; s/^E: Package .\(.*\). has no installation candidate/\1/p' "$log" | tr '\n' ' ')" \
      "use Debian 12 (bookworm); this is $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release)"
  elif grep -q 'but remove is disabled\|Packages need to be removed' "$log"; then
    die "apt would have to remove installed packages (libboost1.74 headers conflict with libboost1.81-dev)" \
      "look at them with 'apt-get install -s ${missing[*]}', then allow it: LONGHOLD_APT_REMOVE=1 scripts/setup"
  elif [[ -n "$update_failed" ]] || grep -q 'Unable to fetch\|Failed to fetch\|Could not resolve' "$log"; then
    die "the Debian package source cannot be reached" \
      "check the network and /etc/apt/sources.list, try 'apt-get update' as root, then run this script again"
  fi
  die "installing Debian packages failed (see above)" "mend it with 'apt-get -f install' as root, then run this script again"
}

# ---------------------------------------------------------------------------------------------------- Python packages

# pip_into DIR LOG PACKAGE...: pinned packages in DIR, beside the interpreter's own; nothing when all are there. Returns 1
# when they cannot be installed; LOG then says why.
pip_into() {
  local dir="$1" log="$2" stamp
  shift 2
  stamp="$*"
  stamp="$dir/.${stamp// /_}"
  [[ ! -e "$stamp" ]] || return 0
  rm -rf "$dir"
  "$LONGHOLD_PYTHON" -m pip install -q --no-cache-dir --target "$dir" "$@" >"$log" 2>&1 </dev/null || return 1
  touch "$stamp"
}

# pip_sdist NAME VERSION SHA256 DIR: fetches a source archive into DIR and checks it.
# pip insists on asking an archive's build backend for its metadata, which would first fetch that backend, unpinned.
# --no-build-isolation and a stand-in backend that answers with the name and version we already know avoid that.
pip_sdist() {
  local name="$1" version="$2" sha256="$3" dir="$4" work
  local file="$dir/${name//-/_}-$version.tar.gz"
  mkdir -p "$dir"
  if [[ ! -f "$file" ]]; then
    work="$(mktemp -d "$dir/.fetch.XXXXXX")"
    mkdir "$work/scikit_build_core"
    cat >"$work/scikit_build_core/build.py" <<PY
import pathlib
def get_requires_for_build_wheel(config_settings=None): return []
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory) / "${name//-/_}-$version.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: $name\nVersion: $version\n")
    return info.name
PY
    printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$sha256" >"$work/requirements.txt"
    if ! PYTHONPATH="$work" "$LONGHOLD_PYTHON" -m pip download --progress-bar off --no-cache-dir --no-deps \
      --no-binary :all: --no-build-isolation --require-hashes -r "$work/requirements.txt" -d "$work/out" \
      >"$LONGHOLD_CACHE/log/pip.log" 2>&1 </dev/null; then
      rm -rf "$work"
      show_log_end "$LONGHOLD_CACHE/log/pip.log"
      if grep -q 'DO NOT MATCH THE HASHES' "$LONGHOLD_CACHE/log/pip.log"; then
        die "checksum of $name $version differs from the pinned $sha256" \
          "run the script again; if it differs again, the package source changed the file: do not use it"
      elif grep -q 'No space left' "$LONGHOLD_CACHE/log/pip.log"; then
        die "disk full while fetching $name $version" "free some space, or set LONGHOLD_CACHE (and TMPDIR) to a larger disk"
      fi
      die "the Python package source cannot be reached (or no longer has $name $version)" \
        "check the network and pip's settings ('$LONGHOLD_PYTHON -m pip config list'), then run this script again"
    fi
    verify_sha256 "$work/out/$(basename "$file")" "$sha256"
    mv "$work/out/$(basename "$file")" "$file"
    rm -rf "$work"
  fi
  verify_sha256 "$file" "$sha256"
  printf '%s\n' "$file"
}

# ---------------------------------------------------------------------------------------------------- libllama

LLAMA_SDIST=llama-cpp-python
LLAMA_SDIST_VERSION=0.3.36
LLAMA_SDIST_SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

# cpu_level: x64, avx2 or avx512: the best libllama build for this machine. LONGHOLD_CPU_LEVEL forces a lower one.
# AMX is never used, whatever the flags say: there are machines that announce it and die on its first instruction.
cpu_level() {
  local flags flag
  [[ "$(uname -m)" == x86_64 ]] ||
    die "this is a $(uname -m) machine; longhold's kernels are for x86-64" "use an x86-64 machine"
  case "${LONGHOLD_CPU_LEVEL:-}" in
    x64 | avx2 | avx512) printf '%s\n' "$LONGHOLD_CPU_LEVEL"; return ;;
    '') ;;
    *) die "LONGHOLD_CPU_LEVEL=$LONGHOLD_CPU_LEVEL is not a level" "use x64, avx2 or avx512, or unset it" ;;
  esac
  flags=" $(sed -n '/^flags[[:space:]]*:/{s/^[^:]*://p;q}' /proc/cpuinfo) "
  has_all() { for flag in "$@"; do [[ "$flags" == *" $flag "* ]] || return 1; done; }
  if ! has_all avx avx2 fma f16c bmi2; then
    printf 'x64\n'
  elif ! has_all avx512f avx512bw avx512dq avx512vl avx512cd avx512vbmi avx512_vnni avx512_bf16; then
    printf 'avx2\n'
  else
    printf 'avx512\n'
  fi
}

# llama_options LEVEL: every option that decides which instructions are emitted, one a line; nothing is left to a default.
llama_options() {
  local avx2=OFF avx512=OFF option
  case "$1" in
    avx512) avx2=ON avx512=ON ;;
    avx2) avx2=ON ;;
  esac
  for option in SSE42=ON "AVX=$avx2" "AVX2=$avx2" "FMA=$avx2" "F16C=$avx2" "BMI2=$avx2" AVX_VNNI=OFF \
    "AVX512=$avx512" "AVX512_VBMI=$avx512" "AVX512_VNNI=$avx512" "AVX512_BF16=$avx512" \
    AMX_TILE=OFF AMX_INT8=OFF AMX_BF16=OFF NATIVE=OFF OPENMP=OFF LLAMAFILE=ON CPU_REPACK=ON LTO=OFF BACKEND_DL=OFF \
    CPU_ALL_VARIANTS=OFF BLAS=OFF CUDA=OFF VULKAN=OFF RPC=OFF; do
    printf -- '-DGGML_%s\n' "$option"
  done
  for option in TESTS EXAMPLES TOOLS SERVER COMMON APP; do printf -- '-DLLAMA_BUILD_%s=OFF\n' "$option"; done
  printf -- '-D%s\n' LLAMA_OPENSSL=OFF BUILD_SHARED_LIBS=OFF CMAKE_BUILD_TYPE=Release \
    CMAKE_POSITION_INDEPENDENT_CODE=ON CMAKE_INSTALL_LIBDIR=lib
}

llama_prefix() { printf '%s/llama-%s-%s\n' "$LONGHOLD_CACHE" "$LLAMA_SDIST_VERSION" "$(cpu_level)"; }

# llama_stamp LEVEL: changes whenever the source or an option does; an install with another stamp is rebuilt.
llama_stamp() { { printf '%s\n' "$LLAMA_SDIST_SHA256"; llama_options "$1"; } | sha256sum | cut -d' ' -f1; }

llama_ready() { [[ "$(cat "$1/longhold-stamp" 2>/dev/null || true)" == "$2" ]]; }

# ensure_llama: static libllama in llama_prefix, with the gguf Python module of the same source in share/gguf-py.
ensure_llama() {
  local level prefix stamp
  level="$(cpu_level)"
  prefix="$(llama_prefix)"
  stamp="$(llama_stamp "$level")"
  if llama_ready "$prefix" "$stamp"; then
    step "libllama ($level): already built"
    return
  fi
  step "libllama ($level): fetching the source (77 MB) and building it (about 3 minutes on 2 cores) ..."
  with_lock "$LONGHOLD_CACHE/llama.lock" build_llama "$level" "$prefix" "$stamp"
}

build_llama() {
  local level="$1" prefix="$2" stamp="$3" archive work source
  if llama_ready "$prefix" "$stamp"; then return; fi
  need_space "$LONGHOLD_CACHE" 1000 "building libllama"
  work="$LONGHOLD_CACHE/.llama-build"  # always the same name, so that ccache knows the files again
  rm -rf "$work"                       # left by a killed run; the lock is ours, so nobody else is using it
  archive="$(pip_sdist "$LLAMA_SDIST" "$LLAMA_SDIST_VERSION" "$LLAMA_SDIST_SHA256" "$LONGHOLD_CACHE/downloads")"
  mkdir "$work"
  # Only what the library needs: the tree also holds 100 MB of tools, models and web pages.
  tar -xzf "$archive" -C "$work" --strip-components=1 --wildcards '*/vendor/llama.cpp/CMakeLists.txt' \
    '*/vendor/llama.cpp/LICENSE' '*/vendor/llama.cpp/licenses' '*/vendor/llama.cpp/cmake' '*/vendor/llama.cpp/ggml' \
    '*/vendor/llama.cpp/include' '*/vendor/llama.cpp/src' '*/vendor/llama.cpp/vendor' '*/vendor/llama.cpp/gguf-py' ||
    die "cannot unpack $archive" "remove it and run this script again"
  source="$work/vendor/llama.cpp"
  local options=()
  mapfile -t options < <(llama_options "$level")
  # CFLAGS of the caller are left out on purpose: a -march=native there would undo the level.
  run_logged "$LONGHOLD_CACHE/log/llama-configure.log" env -u CFLAGS -u CXXFLAGS -u CPPFLAGS \
    cmake -G Ninja -S "$source" -B "$work/build" "${options[@]}" -DCMAKE_INSTALL_PREFIX="$work/install" ||
    die "configuring libllama failed (see above)" "look at the log; report it with the output of 'cmake --version'"
  run_ninja "$LONGHOLD_CACHE/log/llama-build.log" "$work/build" install ||
    die "building libllama failed (see above)" "look at the log; memory may be short (compile jobs: $(job_count))"
  mkdir -p "$work/install/share/gguf-py"
  cp -R "$source/gguf-py/gguf" "$work/install/share/gguf-py/"
  rm -rf "$work/install/lib/pkgconfig"  # names the temporary place; CMake's files are relocatable
  cp "$source/LICENSE" "$work/install/share/LICENSE.llama.cpp"
  printf '%s\n' "$stamp" >"$work/install/longhold-stamp"
  rm -rf "$prefix"
  mv "$work/install" "$prefix"
  rm -rf "$work"
  note "      libllama is in $prefix"
}

# ---------------------------------------------------------------------------------------------------- longhold

# Programs of others that the tests drive the server with; beside the interpreter's own packages, in a folder of the cache.
PIP_TEST=(openai==3.57.0 schemathesis==4.32.0 redis==8.1.0 xllamacpp==2026.10.11549)
test_clients_dir() { printf '%s\n' "$LONGHOLD_CACHE/test-clients"; }

# ensure_test_clients: without them their tests are skipped, so that a package source that is away does not stop the others.
ensure_test_clients() {
  local log="$LONGHOLD_CACHE/log/pip-test.log"
  pip_into "$(test_clients_dir)" "$log" "${PIP_TEST[@]}" ||
    note "      ${PIP_TEST[*]} could not be installed: its tests are skipped (see $log)"
}

# clang-format, pinned: another version would lay out some code differently. tests/tidy/tidy_test.py looks for it here, or
# for the same version in PATH, such as Debian's clang-format-14, which formats our code alike.
CLANG_FORMAT_VERSION=14.0.6
CLANG_FORMAT_SHA256=d7c1c5e404c58e55f0170f01b3c5611dce6c119e62b5d1020347e0ad97d5a047  # of the wheel for Linux on x86-64
clang_format_dir() { printf '%s\n' "$LONGHOLD_CACHE/clang-format-$CLANG_FORMAT_VERSION"; }

# ensure_clang_format: without it the tidy test fails and says how to get it; all other tests run.
ensure_clang_format() {
  local dir log="$LONGHOLD_CACHE/log/pip-clang-format.log"
  dir="$(clang_format_dir)"
  [[ ! -x "$dir/clang_format/data/bin/clang-format" ]] || return 0
  rm -rf "$dir" "$dir.new"
  mkdir -p "$dir.new"
  printf 'clang-format==%s --hash=sha256:%s\n' "$CLANG_FORMAT_VERSION" "$CLANG_FORMAT_SHA256" >"$dir.new/requirements.txt"
  if "$LONGHOLD_PYTHON" -m pip install -q --no-cache-dir --no-deps --only-binary :all: --require-hashes \
    -r "$dir.new/requirements.txt" --target "$dir.new" >"$log" 2>&1 </dev/null; then
    mv "$dir.new" "$dir"
  else
    rm -rf "$dir.new"
    note "      clang-format $CLANG_FORMAT_VERSION could not be installed: the tidy test will fail (see $log)"
  fi
}

# setup_all [--tests|--wheel]: two steps: Debian packages, libllama.
setup_all() {
  local packages=("${APT_BUILD[@]}")
  [[ "${1:-}" != --tests ]] || packages+=("${APT_TEST[@]}")
  [[ "${1:-}" != --wheel ]] || packages+=("${APT_WHEEL[@]}")
  ensure_packages "${packages[@]}"
  if [[ "${1:-}" == --tests ]]; then
    ensure_test_clients
    ensure_clang_format
  fi
  ensure_llama
}

# cache_value BUILD_DIR NAME: the value of a variable in a CMake cache, empty when there is none.
cache_value() { sed -n "s/^$2:[A-Z]*=//p" "$1/CMakeCache.txt" 2>/dev/null | head -n 1; }

# no_aslr COMMAND...: ThreadSanitizer of GCC 12 refuses kernels with 32 random mapping bits; a fixed layout suits all.
no_aslr() {
  if setarch "$(uname -m)" -R true 2>/dev/null; then setarch "$(uname -m)" -R "$@"; else "$@"; fi
}

# build_preset PRESET [TARGET...]: one step: configures build/PRESET when needed and builds it, or those targets of it.
build_preset() {
  step "longhold ($1): building ..."
  mkdir -p "$LONGHOLD_ROOT/build/$1"
  with_lock "$LONGHOLD_ROOT/build/$1.lock" build_preset_locked "$@"
}

build_preset_locked() {
  local preset="$1" dir="$LONGHOLD_ROOT/build/$1" log="$LONGHOLD_CACHE/log/build-$1.log" options=() level prefix
  shift
  if [[ ! -f "$dir/build.ninja" ]]; then need_space "$dir" 1000 "building longhold ($preset)"; fi
  # A build directory that came from elsewhere with its sources cannot be reused by CMake.
  if [[ -f "$dir/CMakeCache.txt" && "$(cache_value "$dir" CMAKE_HOME_DIRECTORY)" != "$LONGHOLD_ROOT" ]]; then
    rm -rf "$dir"
  fi
  if [[ "$preset" == release || "$preset" == package ]]; then
    level="$(cpu_level)"
    prefix="$(llama_prefix)"
    options+=("-DLONGHOLD_LLAMA_PREFIX=$prefix" "-DLONGHOLD_CPU_LEVEL=$level")
    # Another machine or another cache: CMake must forget which libraries it had found.
    if [[ -f "$dir/CMakeCache.txt" && "$(cache_value "$dir" LONGHOLD_LLAMA_PREFIX)" != "$prefix" ]]; then
      note "      libllama for this machine is $level: configuring anew"
      options+=(-U 'llama_*' -U 'ggml_*' -U 'GGML_*')
      rm -f "$dir/build.ninja"
    fi
  fi
  if [[ ! -f "$dir/build.ninja" || "$(cache_value "$dir" LONGHOLD_CPU_LEVEL)" != "${level:-}" ]]; then
    (cd "$LONGHOLD_ROOT" && run_logged "$LONGHOLD_CACHE/log/configure-$preset.log" cmake --preset "$preset" \
      -DPython3_EXECUTABLE="$LONGHOLD_PYTHON" "${options[@]}") ||
      die "configuring longhold ($preset) failed (see above)" "mend the cause, or remove $dir and run this script again"
  fi
  run_ninja "$log" "$dir" "$@" ||
    die "building longhold ($preset) failed (see above)" "mend the cause and run this script again"
}

# longhold_binary: the release program.
longhold_binary() { printf '%s/build/release/longhold\n' "$LONGHOLD_ROOT"; }

# ensure_weights MODEL: one step.
ensure_weights() {
  step "weights of $1 ..."
  need_space "$LONGHOLD_CACHE" 50 "any work"
  "$(longhold_binary)" model get "$1" >/dev/null </dev/null ||
    die "the weights of $1 could not be made ready (see above)" \
      "check the network and pip's settings ('$LONGHOLD_PYTHON -m pip config list') and free disk space, then run this script again"
}
