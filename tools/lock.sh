#!/usr/bin/env bash
# Resolves pyproject.toml (with the dev extra) and the build backend into requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
exec uv pip compile --quiet --python /usr/bin/python3 --extra dev --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links pyproject.toml requirements.in -o requirements.lock "$@"
