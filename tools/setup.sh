#!/bin/sh
# Gets a machine ready for the Makefile's commands; run from the top of the checkout.
#
#   tools/setup.sh packages COMMAND   installs what debian-packages.txt lists for run, test or ci and is missing
#   tools/setup.sh venv               makes .venv, or what VENV names, with the project in it, editable
#   tools/setup.sh venv dev           the same, and what linting and the tests need
#   tools/setup.sh venv lowest        the same, with the oldest versions that pyproject.toml allows
set -eu

PATH=$PATH:/usr/sbin:/usr/local/sbin

fail() {
    echo "$1" >&2
    exit 1
}

apt_install() {
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
    fi
    hint="please install by hand: ${sudo:+$sudo }apt-get install $*"
    for program in apt-get $sudo; do
        command -v "$program" >/dev/null || fail "$program is missing; $hint"
    done
    echo "installing Debian packages: $*"
    { $sudo apt-get update --quiet=2 &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "$@" \
            </dev/null >/dev/null; } || fail "that failed; $hint"
}

packages() {
    missing=
    while read -r package program commands; do
        case " $commands " in
        *" $1 "*) command -v "$program" >/dev/null || test -e "$program" || missing="$missing $package" ;;
        esac
    done <tools/debian-packages.txt
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # one word for each package
        apt_install $missing
    fi
}

venv() {
    python=${PYTHON:-python3}
    if [ "$python" = python3 ]; then
        command -v python3 >/dev/null || apt_install python3-venv
    fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
        fail "there is no $python; please install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is Python $version; please name 3.11 or newer: make PYTHON=python3.12 ..."
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$python" -c 'import ensurepip' 2>/dev/null || apt_install "python$version-venv"
        echo "making $venv with Python $version"
        "$python" -m venv --clear "$venv"
    fi
    echo "installing into $venv: --editable . $*"
    pip --upgrade 'pip >= 25.1' # the first to know --group
    pip --editable . "$@"
}

lowest() {
    "${PYTHON:-python3}" tools/lowest.py >"$constraints"
    venv --group dev --constraint "$constraints"
}

pip() {
    "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$@"
}

venv=${VENV:-.venv}
constraints=$venv-constraints.txt
case "${1:-} ${2:-}" in
"packages "?*) packages "$2" ;;
"venv ") venv ;;
"venv dev") venv --group dev ;;
"venv lowest") lowest ;;
*) fail "usage: tools/setup.sh packages COMMAND | venv [dev | lowest]" ;;
esac
