#!/usr/bin/env bash
# Checks a model and its pruned file, as a step of CI or a hook of pre-commit. docs/ci.md has the exit codes.
#
#     check_model.sh ORIGINAL PRUNED [LARGEST_FLOPS [RUNTIME]]
set -uo pipefail

NOT_PROVEN=3 OVER_BUDGET=4 OTHER_RUNTIME=5
(($# >= 2)) || { echo "usage: check_model.sh ORIGINAL PRUNED [LARGEST_FLOPS [RUNTIME]]" >&2; exit 2; }
original=$1 pruned=$2 largest=${3:-} runtime=${4:-}

# What onnxprune ends with: 1 where a check fails becomes the code of that check, the others (2, 130) stay.
check() {
    local meaning=$1 code=0
    shift
    "$@" || code=$?
    ((code == 0)) || exit $((code == 1 ? meaning : code))
}

check $NOT_PROVEN onnxprune verify "$original" "$pruned"
if [[ -n $largest ]]; then
    figures=$(check 1 onnxprune analyze "$pruned" --json) || exit $?
    check $OVER_BUDGET python -c '
import json, sys
try:
    largest = float(sys.argv[1])
except ValueError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
flops = json.load(sys.stdin)["totals"]["flops"]
print(f"{flops:.4g} multiply-accumulates, {largest:.4g} allowed")
sys.exit(int(flops > largest))' "$largest" <<<"$figures"
fi
if [[ -n $runtime ]]; then
    check $OTHER_RUNTIME onnxprune verify "$original" "$pruned" --runtime "$runtime"
fi
