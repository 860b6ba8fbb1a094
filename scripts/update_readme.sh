#!/usr/bin/env bash
# Regenerate the table of components in the README with `mtl list --markdown`. Set MTL to use another `mtl`.
set -euo pipefail
cd "$(dirname "$0")/.."
mtl=${MTL:-.venv/bin/mtl}
table=$("$mtl" list --markdown)
{
    sed '/<!-- components -->/q' README.md
    echo "$table"
    sed -n '/<!-- \/components -->/,$p' README.md
} >README.md.new
mv README.md.new README.md
