# Sourced by the other scripts: a virtual environment with the package, and Caffe beside it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    [ $# -lt 2 ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

# Installs Debian packages where this user may, and says which are missing where not.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            fail "missing packages: ${missing[*]}" "ask root to run: apt-get install ${missing[*]}"
        fi
    fi
    echo "installing ${missing[*]}" >&2
    local log
    log=$(mktemp)
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}" >"$log" 2>&1; then
        if ! { "${as_root[@]}" apt-get update -q &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}"; } >"$log" 2>&1; then
            tail -n 5 "$log" >&2
            rm -f "$log"
            fail "cannot install ${missing[*]}" "ask root to run: apt-get update && apt-get install ${missing[*]}"
        fi
    fi
    rm -f "$log"
}

# Prints the first Python of at least 3.11 that can make a virtual environment.
find_python() {
    local name
    for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$name" ] && command -v "$name" >/dev/null || continue
        "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        command -v "$name"
        return
    done
    return 1
}

make_venv() { # make_venv [pip arguments...]
    local python stamp wanted
    stamp=$venv/.installed
    wanted=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)" $root $*"
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if ! python=$(find_python); then
        command -v apt-get >/dev/null || fail "no Python 3.11 or newer with venv" "install one, or name it: PYTHON=/path/to/python3.11"
        if apt-cache policy python3 2>/dev/null | grep -Eq 'Candidate: 3\.(1[1-9]|[2-9][0-9])'; then
            need_packages python3 python3-venv
        else
            need_packages python3.11 python3.11-venv
        fi
        python=$(find_python) || fail "no Python 3.11 or newer with venv" "install one, or name it: PYTHON=/path/to/python3.11"
    fi
    echo "setting up Python packages in .venv ($("$python" -V))" >&2
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null || { rm -rf "$venv" && "$python" -m venv "$venv"; }
    rm -f "$stamp"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' \
        -c "$root/constraints.txt" || fail "pip cannot be installed" "is the package index reachable?"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$@" ||
        fail "the Python packages cannot be installed" "is the package index reachable?"
    # timm asks for torchvision, which its model does not need and which has no build for the CPU
    # beside the tested PyTorch.
    case " $* " in *" --group dev "*)
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" \
            --no-deps timm || fail "timm cannot be installed" "is the package index reachable?" ;;
    esac
    printf '%s' "$wanted" >"$stamp"
}

# Installs OpenCV 4, the last to read Caffe's files, beside the tested OpenCV 5, for the tests.
make_opencv4() {
    [ -d "$venv/opencv4/cv2" ] && return
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --target "$venv/opencv4" opencv-python-headless==4.14.0.94
}

# Installs Caffe 1.0 for this user unless one is named or found already.
make_caffe() {
    "$venv/bin/irv2caffe" caffe --which >/dev/null 2>&1 && return
    if [ "$(uname -sm)" = "Linux x86_64" ] && command -v apt-get >/dev/null; then
        need_packages mmdebstrap debian-archive-keyring
    fi
    "$venv/bin/irv2caffe" install-caffe || return
}

# Installs a browser that needs no window, for the tests of the report, where Debian's may be had.
make_browser() {
    command -v chromium || command -v chromium-browser || command -v google-chrome && return
    grep -q '^ID=debian' /etc/os-release 2>/dev/null && (need_packages chromium)
} >/dev/null
