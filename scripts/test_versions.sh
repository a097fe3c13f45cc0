#!/usr/bin/env bash
# The light tests on a base install, without any extra: test_versions.sh RESOLUTION PYTHON..., such as
# "lowest-direct 3.11", with the lowest versions that pyproject.toml allows, or "highest 3.12 3.13".
# A Python that is not on this machine is named and left out; where none of them is there, nothing was tested, which fails.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
resolution=$1
shift

# prints the path of a Python of that version, if there is one
python_of() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  "$uv" python find --no-python-downloads "$1" 2>/dev/null || true
}

ran=0
for version in "$@"; do
  python=$(python_of "$version")
  if [ -z "$python" ]; then
    echo "Python $version is missing, so the light tests are not run on it. Get it with: $uv python install $version"
    continue
  fi
  home=.venv/versions/$resolution-$version
  echo "light tests: Python $version, $resolution"
  "$uv" venv -q --clear --python "$python" "$home"
  "$uv" pip compile -q pyproject.toml --resolution "$resolution" --python-version "$version" -o "$home/base.txt"
  "$uv" pip install -q --python "$home/bin/python" -r "$home/base.txt" --group light
  "$uv" pip install -q --python "$home/bin/python" --no-deps -e .
  # old packages on a newer Python or beside newer ones warn of what is deprecated, which isn't our doing
  warnings=()
  [ "$resolution" = highest ] || warnings=(-W default)
  "$home/bin/python" -m pytest -q --light -p no:cacheprovider ${warnings[@]+"${warnings[@]}"}
  ran=$((ran + 1))
done
echo "light tests ran on $ran of $# Pythons"
[ "$ran" -gt 0 ]
