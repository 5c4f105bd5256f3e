#!/usr/bin/env bash
# `import onnxruntime` alone, without a model, writes a device id and a database of events into the home folder.
# Where the variable CI is set it writes nothing, so a test in CI does not notice.
#
# Versions: onnxruntime 1.32.0 and 1.28.0 from the public package index; Python 3.11, Linux.
#
# Why: since 1.29 the packages for Linux report usage to their maker by default. One expects neither an import nor
# the upgrade of a library to do that. ORT_DISABLE_TELEMETRY=1 switches it off, but only if it is set before the
# import. A process that lives for some seconds also looks up the host that takes the events (seen with strace).
#
# Seen on 2026-11-29:
#   1.28.0: no file
#   1.32.0: deviceid and onnxruntime.db in .cache/Microsoft/DeveloperTools/.onnxruntime
#   CI: no file
#   off: no file
#   off after the import: the same two files
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

install() {
  "$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "onnxruntime==$1" numpy==2.4.6
}

# run CODE [NAME=VALUE...]: prints the files that a process with a new home folder leaves there.
run() {
  local code=$1 home files
  shift
  home=$(mktemp -d -p "$folder")
  env -i HOME="$home" PATH="$PATH" "$@" "$folder/venv/bin/python" -c "$code" >/dev/null
  files=$(cd "$home" && find . -type f ! -name '*.db-*' -printf '%P\n' | sort | tr '\n' ' ')
  echo "${files:-no file}"
}

python3 -m venv "$folder/venv"
late='import onnxruntime, os; os.environ["ORT_DISABLE_TELEMETRY"] = "1"'
{
  install 1.28.0
  echo "1.28.0: $(run 'import onnxruntime')"
  install 1.32.0
  echo "1.32.0: $(run 'import onnxruntime')"
  echo "CI: $(run 'import onnxruntime' CI=true)"
  echo "off: $(run 'import onnxruntime' ORT_DISABLE_TELEMETRY=1)"
  echo "off after the import: $(run "$late")"
} | sed 's/ *$//' >"$folder/seen"

cat "$folder/seen"
place=.cache/Microsoft/DeveloperTools/.onnxruntime
diff - "$folder/seen" <<EXPECTED
1.28.0: no file
1.32.0: $place/deviceid $place/onnxruntime.db
CI: no file
off: no file
off after the import: $place/deviceid $place/onnxruntime.db
EXPECTED
