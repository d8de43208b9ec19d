#!/bin/sh
# Builds manager/webui/static/graphiql from this folder. Run it after a change here and commit what it writes.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund
node build.mjs
rm -rf node_modules
