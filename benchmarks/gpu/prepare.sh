#!/usr/bin/env bash
# Gathers under .gpu/ what a GPU machine without a network needs. Run in the repository's root, after `make setup`:
#   bash benchmarks/gpu/prepare.sh
# Makes .gpu/part1 .. partN, each small enough to travel with the working tree in one call, and .gpu/kit.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$(git rev-parse --show-toplevel)"
LIMIT=${LIMIT:-64} # MiB that one call may carry, the working tree included
SPARE=${SPARE:-4}  # MiB of it left free

exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
grep -qxsF /.gpu/ "$exclude" || echo /.gpu/ >>"$exclude"
mkdir -p .gpu/wheels .gpu/slim .gpu/kit

wanted=$(sed 's/#.*//; /^ *$/d' "$here/wheels.txt")
platforms=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
for n in 39 38 36 35 34 31 28 27 26 24 17 12 5; do platforms+=(--platform "manylinux_2_${n}_x86_64"); done
for tool in python3 .venv/bin/python; do "$tool" -m pip --version >/dev/null 2>&1 && pip="$tool -m pip"; done
echo "downloading $(wc -l <<<"$wanted") wheels ..."
$pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
  -d .gpu/wheels -r "$here/wheels.txt"
vllm=$(basename "$(ls .gpu/wheels/vllm-*.whl)")
others=$(cd .gpu/wheels && ls | grep -vxF "$vllm")
[ "$(wc -l <<<"$others")" = "$(($(wc -l <<<"$wanted") - 1))" ] || { echo "not one wheel for each name: $others" >&2; exit 1; }
if [ ! -s ".gpu/slim/$vllm" ]; then
  echo "slimming $vllm ..."
  python3 "$here/slim.py" ".gpu/wheels/$vllm" .gpu/slim/new.part
  mv .gpu/slim/new.part ".gpu/slim/$vllm"
fi
[ -x .venv/bin/python ] || { echo "run make setup first: the tokenizer comes from the embedded model" >&2; exit 1; }
model=$(.venv/bin/python -c 'from stars_guard.engines.embedded_models import generator_dir; print(generator_dir())')
mkdir -p .gpu/slim/tokenizer
cp "$model/tokenizer.json" "$model/tokenizer_config.json" "$model/chat_template.jinja" .gpu/slim/tokenizer/
tar -czf .gpu/slim/tokenizer.tar.gz -C .gpu/slim tokenizer
cp "$here/install.sh" "$here/env.sh" .gpu/kit/

MIB=1048576
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 stat -c %s 2>/dev/null | awk '{s += $1} END {print s}')
rm -rf .gpu/part*
tar -cf .gpu/slim/all.tar -C .gpu/slim "$vllm" tokenizer.tar.gz -C ../wheels $others
total=$(stat -c %s .gpu/slim/all.tar)
room=$(((LIMIT - SPARE) * MIB - tree))
count=$(((total + room - 1) / room))
split -d -a 1 --numeric-suffixes=1 -n "$count" .gpu/slim/all.tar .gpu/slim/wheels.tar.
rm .gpu/slim/all.tar
for n in $(seq "$count"); do
  mkdir ".gpu/part$n"
  mv ".gpu/slim/wheels.tar.$n" ".gpu/part$n/"
done
(cd .gpu && sha256sum part*/wheels.tar.* | sed 's#part[0-9]*/##') >.gpu/kit/SHA256SUMS
echo "working tree $((tree / MIB + 1)) MiB, $count parts of $((total / count / MIB + 1)) MiB:" .gpu/part*
