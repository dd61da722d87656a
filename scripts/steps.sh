# Runs steps one after the other, each with its log, and counts what passed. Sourced by scripts/test and scripts/test-long,
# which give
#   program           their own name, for messages
#   steps             the names of the steps, in order; those that are joined by a plus run side by side
#   step_seconds_max  the time after which a step is ended
#   usage             a function that prints what --help says
#   run_step NAME     a function that runs a step, each command of it by `limited`
# and call `run_steps ARGUMENT...`.

# C of dependencies is compiled once for all directories and profiles: setup brings ccache, whose names for compilers come first.
export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=${CCACHE_DIR:-$PWD/target/ccache} CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=true

log_tail_lines=40
slowest_max=20

# Bounds a command in time. It runs in the background because only `wait` lets a signal through.
limited() {
    timeout --kill-after=10 "$step_seconds_max" "$@" &
    running=$!
    wait "$running"
    local code=$?
    [ $code -ne 124 ] || echo "$program: this step did not end within $step_seconds_max s"
    return $code
}

# Reads a step's log; prints how many tests passed and failed in it, as its test runners say.
count_results() {
    awk '
        # Ours.
        /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
        # cargo nextest; what did not pass failed, timed out or could not start.
        $1 == "Summary" && match($0, /[0-9]+(\/[0-9]+)? tests? run: [0-9]+ passed/) {
            split(substr($0, RSTART, RLENGTH), words, " ")
            passed += words[4]
            failed += words[1] - words[4]
        }
        # cargo test.
        /^test result: / { passed += $4; failed += $6 }
        # node --test, which counts what ran out of time by itself.
        /^(#|ℹ) pass [0-9]+$/ { passed += $3 }
        /^(#|ℹ) (fail|cancelled) [0-9]+$/ { failed += $3 }
        END { print passed + 0, failed + 0 }
    ' "$1"
}

report() {
    local name=$1 code=$2 seconds=$3 cpu=$4 passed failed result=ok
    read -r passed failed < <(count_results "$logs/$name.log")
    if [ "$code" -ne 0 ]; then
        result=FAILED
        [ "$failed" -gt 0 ] || failed=1
        tail -n "$log_tail_lines" "$logs/$name.log" | sed 's/^/  | /'
    elif [ "$passed" -eq 0 ]; then
        passed=1
    fi
    # A runner that reports a failure and exits with 0 is not believed.
    [ "$failed" -eq 0 ] || result=FAILED
    passed_sum=$((passed_sum + passed))
    failed_sum=$((failed_sum + failed))
    table+=$(printf '%-18s %-7s %7d %7d %6d s %6d s' "$name" "$result" "$passed" "$failed" "$seconds" "$cpu")$'\n'
    printf '   %s %s, %d s\n' "$name" "$result" "$seconds"
}

# The slowest tests of the step `unit`, by the times that cargo nextest printed.
print_slowest() {
    [[ $table == *"unit "* ]] || return 0
    printf 'slowest tests:\n'
    sed -nE 's/^ *(PASS|FAIL|TIMEOUT|TMT|LEAK) \[ *([0-9.]+)s\] *(\([^)]*\) *)?(.*)/\2 s  \4/p' "$logs/unit.log" |
        sort -u | sort -rn | head -n "$slowest_max"
    printf '\n'
}

read_arguments() {
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help)
                usage
                exit 0
                ;;
        esac
        if [[ " ${steps[*]//+/ } " != *" $argument "* ]]; then
            printf '%s: there is no step "%s"\n' "$program" "$argument" >&2
            usage >&2
            exit 2
        fi
    done
}

# Reads what `times` printed: seconds of CPU of all commands that were waited for.
sum_cpu() {
    awk 'NR == 2 { split($1 "m" $2, part, /[ms]+/); printf "%d", (part[1] + part[3]) * 60 + part[2] + part[4] }' "$1"
}

# Runs a step, with its log, and writes what it gave and how long it took, of time and of CPU.
run_logged() {
    local step=$1 started=$SECONDS running=
    trap '[ -z "$running" ] || kill "$running" 2>/dev/null; exit 130' INT TERM
    run_step "$step" >"$logs/$step.log" 2>&1
    local code=$?
    times >"$logs/$step.times"
    printf '%d %d %d\n' "$code" $((SECONDS - started)) "$(sum_cpu "$logs/$step.times")" >"$logs/$step.outcome"
}

# Runs `setup` and then all steps, or only the named ones. Returns 0 if every one held.
run_steps() {
    local group step names code seconds cpu
    read_arguments "$@"
    logs=target/tests/log
    mkdir -p "$logs"
    groups=()
    trap '[ ${#groups[@]} -eq 0 ] || kill "${groups[@]}" 2>/dev/null; exit 130' INT TERM
    passed_sum=0
    failed_sum=0
    table=
    for group in setup "${steps[@]}"; do
        names=()
        for step in ${group//+/ }; do
            [ $# -eq 0 ] || [ "$step" = setup ] || [[ " $* " == *" $step "* ]] || continue
            names+=("$step")
        done
        [ ${#names[@]} -gt 0 ] || continue
        printf '== %s\n' "${names[*]}"
        groups=()
        for step in "${names[@]}"; do
            rm -f "$logs/$step.outcome"
            run_logged "$step" &
            groups+=($!)
        done
        wait "${groups[@]}"
        groups=()
        for step in "${names[@]}"; do
            read -r code seconds cpu <"$logs/$step.outcome" || { code=1 seconds=0 cpu=0; }
            report "$step" "$code" "$seconds" "$cpu"
        done
    done
    printf '\n%-18s %-7s %7s %7s %8s %8s\n%s\n' step result passed failed time CPU "$table"
    print_slowest
    printf '%d passed, %d failed\n' "$passed_sum" "$failed_sum"
    [ "$failed_sum" -eq 0 ]
}
