#!/usr/bin/env bash
# Makes .gpu/ in this checkout: vLLM's CUDA build, thinned to the code that an H100 or H200 runs, and the packages
# that it imports, for Python 3.12 and torch 2.11. Then it prints the commands to run on the GPU machine.
#
#     bash benchmarks/gpu/build_kit.sh          (`make gpu-kit` does the same)
#
# It needs pip, unzip, xz, 1.5 GB of free disk, and 4 minutes of one core. Settings, as environment variables:
#   PYTHON      the Python with pip (3.11 or later)
#   DOWNLOADS   a directory that keeps the wheels for the next run; remove it when the lock has changed
#   XZ_LEVEL    1 (fast, larger) to 9; the default is 6
#   LIMIT       the bytes that one transfer to the GPU machine takes, checkout included; the default is 64 MiB
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
python=${PYTHON:-python3}
limit=${LIMIT:-67108864}
kit=$PWD/.gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${DOWNLOADS:-$work/wheels}
mkdir -p "$wheels"

download() { # into the directory $1, for the GPU machine's Python, without the packages' own dependencies
  local to=$1; shift
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    $(printf -- '--platform manylinux_2_%s_x86_64 ' 35 34 31 28 27 26 24 17 5) \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$to" --constraint requirements/gpu.lock "$@"
}

download "$wheels/vllm" vllm
download "$wheels/more" --requirement "$here/kit.txt"

site=$work/site
mkdir "$site"
# To unpack these wheels is to install them: none needs a script or a compiled step.
for wheel in "$wheels"/more/*.whl; do unzip -q -o "$wheel" -d "$site"; done
unzip -q -o "$wheels"/vllm/vllm-*.whl -d "$site" -x 'vllm/vllm-rs' 'vllm/third_party/deep_gemm/*' \
  'vllm/third_party/fmha_sm100/*' 'vllm/_moe_C*' 'vllm/_flash*' 'vllm/_qutlass*' 'vllm/_deepselect*' \
  'vllm/vllm_flash_attn/_vllm_fa2_C*' 'vllm/_C_stable*' 'vllm/vllm_flash_attn/_vllm_fa3_C*'
mkdir "$work/raw"
unzip -q -j "$wheels"/vllm/vllm-*.whl '*_C_stable_libtorch.abi3.so' '*_vllm_fa3_C.abi3.so' -d "$work/raw"
rm -f "$work"/raw/_moe_C*
"$python" "$here/thin_fatbin.py" "$work/raw/_C_stable_libtorch.abi3.so" "$site/vllm/_C_stable_libtorch.abi3.so"
# FlashAttention 3: bfloat16, head sizes 64 and 128, no soft cap.
"$python" "$here/thin_fatbin.py" "$work/raw/_vllm_fa3_C.abi3.so" "$site/vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so" \
  --placeholder-from "$work/raw/_C_stable_libtorch.abi3.so" --among FlashAttnFwdSm90 \
  --keep 'ELi(64|128)ENS_10bfloat16_tEfNS_4arch4Sm90ELb[01]ELb[01]ELb0E'
chmod +x "$site"/vllm/*.so "$site"/vllm/vllm_flash_attn/*.so

# The product is not installed there. These entry points let vLLM find its plugin, and its command find the
# sub-commands; the code itself comes from the checkout, by PYTHONPATH.
info=$site/lora_compose-0.0.dist-info
mkdir "$info"
printf 'Metadata-Version: 2.1\nName: lora-compose\nVersion: 0.0\n' > "$info/METADATA"
"$python" - pyproject.toml > "$info/entry_points.txt" <<'ROWS'
import sys, tomllib
for group, rows in tomllib.load(open(sys.argv[1], "rb"))["project"]["entry-points"].items():
    print(f"[{group}]", *(f"{name} = {target}" for name, target in rows.items()), "", sep="\n")
ROWS

rm -rf "$kit"
mkdir "$kit"
find "$site" -name __pycache__ -prune -exec rm -rf {} +
tar -C "$site" -cf - . | xz -T0 "-${XZ_LEVEL:-6}" > "$work/kit.tar.xz"
checkout=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb 2>/dev/null | tail -1 | cut -f1)
room=$((limit - checkout - 1048576))
split -b "$room" -d "$work/kit.tar.xz" "$kit/kit.tar.xz."
pieces=("$kit"/kit.tar.xz.*)
ls -l "$kit"
echo "checkout $checkout bytes, kit $(du -cb "${pieces[@]}" | tail -1 | cut -f1) bytes; one transfer takes $limit bytes"

unpack='mkdir -p /tmp/site && cat /tmp/piece.* | python3 -c "import sys,tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode=\"r|xz\").extractall(\"/tmp/site\", filter=\"data\")" && python3 -m compileall -q -j 16 /tmp/site >/dev/null; rm -f /tmp/piece.*'
# `.typing/lora_compose` is a link to the checkout. Some transfers lose links, or send what a link names.
link='{ test -L .typing/lora_compose || { rm -rf .typing/lora_compose; mkdir -p .typing; ln -s .. .typing/lora_compose; }; }'
environment="$link; export OUT=\${OUT:-\$PWD/.gpu} PYTHONPATH=\$PWD/.typing:/tmp/site PYTHONUNBUFFERED=1 VLLM_USE_FLASHINFER_SAMPLER=0"
machine='(set -x; df -h / /dev/shm; nvidia-smi --query-gpu=name,driver_version,clocks.sm,memory.total --format=csv)'
engine='python3 -m lora_compose.benchmarks.gpu --parts env,small,graphs,big,kernels --seconds 370 | tee $OUT/results.jsonl'
product='timeout 150 python3 -m lora_compose.benchmarks.gpu.http demo | tee $OUT/http.jsonl'
echo
if [ ${#pieces[@]} = 1 ]; then
  echo "In the checkout on the GPU machine, with .gpu/ in it (at most 560 s):"
  echo "cp .gpu/kit.tar.xz.* /tmp/piece.00 && $unpack; $environment; $machine; $engine; $product"
else
  echo "${#pieces[@]} transfers, one right after another, each of the checkout with one piece in .gpu/:"
  for piece in "${pieces[@]}"; do
    echo "cp .gpu/$(basename "$piece") /tmp/piece.${piece##*.}"
  done
  echo "After the last one (at most 560 s):"
  echo "$unpack; $environment; $machine; $engine; $product"
fi
echo
echo "Another run on the same machine needs only the checkout:"
echo "$environment; python3 -m lora_compose.benchmarks.gpu --parts fuse --seconds 200 | tee \$OUT/results.jsonl"
