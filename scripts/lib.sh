# shellcheck shell=bash
# shellcheck disable=SC2034  # what stands here is used by the scripts that read it in
# What the scripts beside it share: progress, packages, the Rust toolchain, a lab in the background.
#
# Read in with `source`, never run. The script that reads it in has set `set -euo pipefail`.
# A step's output goes to a log; the terminal shows elapsed time and an estimate of what is left.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly REPO
readonly PACKAGES_TO_BUILD=(build-essential pkg-config)
readonly PACKAGES_TO_RUN=(tor nginx-light curl iproute2 systemd)
readonly PACKAGES_OF_PEERS=(haproxy onionbalance libnginx-mod-stream faketime strace librsvg2-bin)

# Debian keeps nginx and haproxy here, and not in everybody's PATH.
export PATH="$PATH:/usr/sbin:/sbin"
# Logs are read as text.
export CARGO_TERM_COLOR=never

# --- Messages -----------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
complain() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# 95 -> "1 min 35 s"
duration() {
    local seconds=$1
    if ((seconds < 60)); then
        printf '%d s' "$seconds"
    else
        printf '%d min %02d s' $((seconds / 60)) $((seconds % 60))
    fi
}

# The header of the script that runs, as its help.
print_help() {
    sed --quiet '2,/^$/ { s/^# \{0,1\}//p }' "$0"
}

# --- Steps --------------------------------------------------------------------------------------

# Durations of earlier runs stand here: the next run's estimates.
STEP_TIMES="${CARGO_TARGET_DIR:-$REPO/target}/.step-seconds"
# The process group of the step that runs, for a trap to end.
STEP_PID=""
# The lab in the background: its process, our end of its pipe, its folder.
LAB_PID=""
LAB_STDIN=""
LAB_DIR=""

# run_step NAME ESTIMATE_SECONDS LOG COMMAND...
# Runs the command with its output in LOG, shows progress, prints one line at the end. Its exit
# status is the command's; on a failure the end of the log is shown.
run_step() {
    local name=$1 estimate=$2 log=$3 started=$SECONDS status=0 seconds
    shift 3
    estimate=$(remembered_seconds "$name" "$estimate")
    # A process group of its own: a trap can end all of it, and Ctrl-C reaches only this script.
    set -m
    without_lab_pipe "$@" >"$log" 2>&1 </dev/null &
    STEP_PID=$!
    set +m
    show_progress "$STEP_PID" "$name" "$estimate" "$log"
    wait "$STEP_PID" || status=$?
    STEP_PID=""
    seconds=$((SECONDS - started))
    if ((status == 0)); then
        remember_seconds "$name" "$seconds"
        printf '%-5s %s (%s)\n' "ok" "$name" "$(duration "$seconds")"
    else
        printf '%-5s %s (%s), exit status %d; the end of %s:\n' \
            "FAIL" "$name" "$(duration "$seconds")" "$status" "$log"
        tail --lines=40 "$log" | sed 's/^/    | /'
    fi
    return "$status"
}

# show_progress PID NAME ESTIMATE_SECONDS LOG: until the process has ended. The first two seconds
# are silent.
show_progress() {
    local pid=$1 name=$2 estimate=$3 log=$4 started=$SECONDS elapsed shown=0 ticks=0
    local spinner="|/-\\"
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        ticks=$((ticks + 1))
        elapsed=$((SECONDS - started))
        ((elapsed >= 2)) || continue
        if [[ -t 1 ]]; then
            printf '\r\033[K%s     %s, %s' "${spinner:ticks % 4:1}" "$name" \
                "$(progress_text "$elapsed" "$estimate" "$log")"
        elif ((elapsed >= shown + 10 || shown == 0)); then
            shown=$elapsed
            printf '...   %s, %s\n' "$name" "$(progress_text "$elapsed" "$estimate" "$log")"
        fi
    done
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
}

# "1 min 05 s, about 40 s left (212 crates begun)"
progress_text() {
    local elapsed=$1 estimate=$2 log=$3 left crates tests
    left=$((estimate - elapsed))
    printf '%s, ' "$(duration "$elapsed")"
    if ((left > 0)); then
        printf 'about %s left' "$(duration "$left")"
    else
        printf 'longer than the %s that were expected' "$(duration "$estimate")"
    fi
    crates=$(count_lines '^ *(Compiling|Checking) ' "$log")
    tests=$(count_lines '^test .* \.\.\. ' "$log")
    if ((tests > 0)); then
        printf ' (%d done)' "$tests"
    elif ((crates > 0)); then
        printf ' (%d crates begun)' "$crates"
    fi
}

# count_lines PATTERN FILE: 0 also when there is no file yet.
count_lines() { grep --count --extended-regexp "$1" "$2" 2>/dev/null || [[ -e $2 ]] || echo 0; }

remembered_seconds() {
    local key=${1//[^a-zA-Z0-9]/-}
    cat "$STEP_TIMES/$key" 2>/dev/null || printf '%d\n' "$2"
}

remember_seconds() {
    local key=${1//[^a-zA-Z0-9]/-}
    # A step that found everything done says nothing about the next one that has work.
    (($2 >= 2)) || return 0
    mkdir --parents "$STEP_TIMES" && printf '%d\n' "$2" >"$STEP_TIMES/$key"
}

# without_lab_pipe COMMAND...: in a background shell of its own. Whoever held a copy of the pipe
# (see `lab_begin`) would keep the lab alive after this script.
without_lab_pipe() {
    if [[ -n "$LAB_STDIN" ]]; then exec {LAB_STDIN}>&-; fi
    # A program takes the shell's place and so leads the process group.
    if [[ "$(type -t "$1")" == file ]]; then exec "$@"; fi
    "$@"
}

# Ends the step that runs, with all that it started.
stop_step() {
    [[ -n "$STEP_PID" ]] || return 0
    stop_group "$STEP_PID"
    STEP_PID=""
}

# stop_group PID [SECONDS]: SIGTERM to a process group that we started; SIGKILL after SECONDS.
stop_group() {
    local pid=$1 patience=${2:-10} started=$SECONDS
    kill -TERM -- "-$pid" 2>/dev/null || true
    while kill -0 -- "-$pid" 2>/dev/null; do
        if ((SECONDS - started >= patience)); then
            kill -KILL -- "-$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}

# --- Packages (Debian and its kin) --------------------------------------------------------------

is_installed() {
    [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# ensure_packages PACKAGE...: installs what is missing; does nothing, and needs no rights, when
# nothing is.
ensure_packages() {
    local missing=() package sudo=()
    if ! command -v dpkg-query >/dev/null; then
        complain "this is no Debian: install these yourself, then run me again: $*"
        return 1
    fi
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            complain "missing packages: ${missing[*]}"
            complain "as root, run: apt-get install --no-install-recommends ${missing[*]}"
            return 1
        fi
        sudo=(sudo)
        # Ask for the password now, while somebody can see the question.
        sudo --validate
    fi
    say "Installing ${missing[*]}"
    local log status=0
    log=$(mktemp --tmpdir rustbalance-apt.XXXXXX)
    run_step "apt-get install" 60 "$log" install_packages "${sudo[*]}" "${missing[@]}" || status=$?
    if ((status == 0)); then rm --force "$log"; fi
    return "$status"
}

# install_packages AS_ROOT PACKAGE...: AS_ROOT is `sudo` or nothing. Runs in a shell of its own.
install_packages() {
    local as_root=$1 policy=/usr/sbin/policy-rc.d
    shift
    # Debian starts tor, nginx and haproxy when it installs them; we want the programs, not the
    # services. `policy-rc.d` is the documented way to say so, and it goes again at once.
    if [[ ! -e $policy ]]; then
        # shellcheck disable=SC2064  # both are known now
        trap "$as_root rm --force '$policy'" EXIT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get --option DPkg::Lock::Timeout=120 \
            install --yes --no-install-recommends "$@"
}

# --- The Rust toolchain -------------------------------------------------------------------------

# The oldest version that Cargo.toml allows.
rust_version_wanted() {
    sed --quiet 's/^rust-version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml" | head --lines=1
}

# Fails, and says how to get a toolchain, when there is none or it is too old.
check_toolchain() {
    local wanted found
    wanted=$(rust_version_wanted)
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null; then
        complain "no Rust toolchain was found; at least $wanted is needed. To get one:"
        complain "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        complain "then open a new shell, or run: . \"\$HOME/.cargo/env\""
        return 1
    fi
    found=$(cd "$REPO" && rustc --version 2>/dev/null | cut --delimiter=' ' --fields=2) || true
    if [[ -z $found ]]; then
        complain "rustc does not run here; \`rustup toolchain install stable\` may mend it"
        return 1
    fi
    if [[ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort --version-sort | head --lines=1)" \
        != "$wanted" ]]; then
        complain "Rust $found is too old; at least $wanted is needed. To get it:"
        if command -v rustup >/dev/null; then
            complain "    rustup update stable"
        else
            complain "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
            complain "(the toolchain here is not rustup's: remove it, or put rustup's first in PATH)"
        fi
        return 1
    fi
    # The build is for x86-64-v3, which every server processor since 2015 has; some virtual
    # machines hide it.
    if [[ "$(uname --machine)" == x86_64 && -z "${RUSTFLAGS:-}" ]] &&
        ! grep --quiet --word-regexp avx2 /proc/cpuinfo; then
        say "This processor has no AVX2: building for plain x86-64 (slower)."
        export RUSTFLAGS="-C target-cpu=x86-64"
    fi
}

# The folder that cargo builds into.
target_dir() {
    local found
    found=$(cd "$REPO" && cargo metadata --no-deps --offline --format-version 1 2>/dev/null |
        sed --quiet 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    printf '%s\n' "${found:-$REPO/target}"
}

# --- A lab in the background --------------------------------------------------------------------

# lab_begin LAB_BINARY SIZE WORK_DIR LOG: brings a private Tor network up in the background.
#
# It lives for as long as this script holds the write end of a pipe: when the script ends, in
# whatever way, the lab's command reads the end of its input and the lab takes itself down.
lab_begin() {
    local lab=$1 size=$2 work=$3 log=$4
    rm --force "$work/lab.stdin" "$work/lab.dir"
    mkfifo "$work/lab.stdin"
    # shellcheck disable=SC2016  # the inner shell expands these
    local hold='printf "%s\n" "$RUSTBALANCE_LAB_DIR" >"$1.new"; mv "$1.new" "$1"; cat >/dev/null'
    set -m
    "$lab" run --size "$size" -- bash -c "$hold" hold "$work/lab.dir" \
        <"$work/lab.stdin" >"$log" 2>&1 &
    LAB_PID=$!
    set +m
    exec {LAB_STDIN}>"$work/lab.stdin"
    rm --force "$work/lab.stdin"
}

# wait_for_lab WORK_DIR LOG: returns when the lab is up, with its folder in LAB_DIR.
wait_for_lab() {
    local work=$1
    while [[ ! -s $work/lab.dir ]]; do
        if ! kill -0 "$LAB_PID" 2>/dev/null; then
            complain "the lab ended before it was up; the end of $2:"
            tail --lines=20 "$2" | sed 's/^/    | /' >&2
            return 1
        fi
        sleep 0.1
    done
    LAB_DIR=$(<"$work/lab.dir")
}

# Takes the lab down and waits until nothing of it is left.
lab_end() {
    [[ -n "$LAB_PID" ]] || return 0
    local started=$SECONDS
    exec {LAB_STDIN}>&-
    LAB_STDIN=""
    while kill -0 "$LAB_PID" 2>/dev/null && ((SECONDS - started < 30)); do
        sleep 0.1
    done
    stop_group "$LAB_PID" 30
    LAB_PID=""
}
