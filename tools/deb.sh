#!/bin/sh
# Builds dist/influxrelay_VERSION_ARCHITECTURE.deb from this checkout; run from its top, after tools/setup.sh.
#
#   tools/deb.sh [DIRECTORY]   builds into DIRECTORY instead of dist
#
# For this machine's Debian and its Python, whatever Python .venv, or what VENV names, has. The libraries are the newest
# that pyproject.toml allows.
set -eu

out=${1:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
pip="$(cd "${VENV:-.venv}" && pwd)/bin/python -m pip --disable-pip-version-check"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' influxrelay/__init__.py)
date=$(git log -1 --format=%cD 2>/dev/null || date -R)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/influxrelay"
cp -R packaging/debian "$work/influxrelay/debian"
cp -R README.rst CHANGES.rst docs etc "$work/influxrelay"
cat >"$work/influxrelay/debian/changelog" <<END
influxrelay ($version) unstable; urgency=medium

  * See CHANGES.rst.gz in /usr/share/doc/influxrelay.

 -- The influxrelay authors <influxrelay@packages.invalid>  $date
END
$pip --python /usr/bin/python3 wheel --quiet --wheel-dir "$work/influxrelay/wheels" . 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }
cd "$work/influxrelay"
# Nothing is compiled, so build-essential is not needed, although every build depends on it.
PIP=$pip dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 1; }
cp "$work"/*.deb "$out"
ls "$out"/influxrelay_"$version"_*.deb
