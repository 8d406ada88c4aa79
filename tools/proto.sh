#!/usr/bin/env bash
# Makes everything that is generated from proto/: Python messages, stubs and types, and the OpenAPI file.
# `tools/proto.sh check` generates and fails if the committed files differ, or if the contracts break what an earlier
# version promised. Needs npm (buf) and, for OpenAPI, Go; exits with 3 where one of them is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
BUF_VERSION=1.75.0
OPENAPI_VERSION=v2.30.0
TOOLS=.cache/tools

need_buf() {
  [ -x "$TOOLS/node_modules/.bin/buf" ] && [ "$("$TOOLS/node_modules/.bin/buf" --version)" = "$BUF_VERSION" ] && return
  command -v npm >/dev/null || { echo "proto: buf comes from npm, which is not installed; everything but regenerating works without" >&2; exit 3; }
  mkdir -p "$TOOLS"
  npm install --silent --no-save --prefix "$TOOLS" "@bufbuild/buf@$BUF_VERSION" >/dev/null
}

need_openapi() {
  [ -x "$TOOLS/bin/protoc-gen-openapiv2" ] && return
  command -v go >/dev/null || { echo "proto: the OpenAPI generator is built with Go, which is not installed; everything but regenerating works without" >&2; exit 3; }
  GOBIN="$PWD/$TOOLS/bin" go install "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2@$OPENAPI_VERSION"
}

# Google's annotations come with googleapis-common-protos; buf wants them in a module of the workspace.
vendor_annotations() {
  local from; from=$(.venv/bin/python -c 'import google.api; print(list(google.api.__path__)[0])')/..
  mkdir -p .cache/googleapis/google/{api,rpc}
  cp "$from"/api/{annotations,http,field_behavior}.proto .cache/googleapis/google/api/
  cp "$from"/rpc/{status,code}.proto .cache/googleapis/google/rpc/
}

# Against the last release, or the commit before this one while there is none.
check_breaking() {
  local base old
  base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git rev-parse --verify --quiet HEAD~1) || return 0
  old=$(mktemp -d)
  git archive "$base" proto buf.yaml | tar -x -C "$old"
  mkdir -p "$old/.cache"
  cp -r .cache/googleapis "$old/.cache/"
  buf breaking . --against "$old" || { rm -rf "$old"; return 1; }
  rm -rf "$old"
}

need_buf; need_openapi; vendor_annotations
export PATH="$PWD/.venv/bin:$PWD/$TOOLS/bin:$PWD/$TOOLS/node_modules/.bin:$PATH"
case "${1:-generate}" in
  generate) buf format -w proto; buf lint proto; buf generate proto 2> >(grep -v "^Writing mypy" >&2); mv services/gateway/openapi.swagger.json services/gateway/openapi.json ;;
  check)
    buf format --diff --exit-code proto; buf lint proto; check_breaking
    buf generate proto 2> >(grep -v "^Writing mypy" >&2); mv services/gateway/openapi.swagger.json services/gateway/openapi.json
    git diff --exit-code --stat -- clients/python/gen services/gateway/openapi.json ;;
  *) echo "usage: tools/proto.sh [generate|check]" >&2; exit 2 ;;
esac
