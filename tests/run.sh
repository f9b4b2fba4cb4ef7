#!/usr/bin/env bash
# Installs what the tests need on a Debian machine with Rust, builds the workspace and runs every test.
#
#   tests/run.sh [arguments of cargo test]
#
# Whatever is installed is not started, and a database that runs here is not touched: the tests start servers of their
# own on private sockets and ports. LAMPAD_NO_INSTALL=1 installs nothing. Run by an ordinary user it installs with sudo and
# skips the tests that need root's rights, and says which these are.
set -euo pipefail
cd "$(dirname "$0")/.."

# Package, and the program by which we see that it is there.
NEEDED=(
    mariadb-server:mariadbd
    prometheus:promtool
    prometheus-node-exporter:prometheus-node-exporter
    prometheus-mysqld-exporter:prometheus-mysqld-exporter
    systemd:systemd-analyze
    python3-venv:python3
    strace:strace
    openssl:openssl
    curl:curl
    # libFuzzer is C++, see collector/fuzz.
    g++:c++
)

say() { printf '== %s\n' "$*"; }

# Debian's python3 can make environments only with the package python3-venv.
python_ok() { python3 -c 'import venv, ensurepip' >/dev/null 2>&1; }

there() {
    case $1 in
    python3-venv) python_ok ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$2" >/dev/null ;;
    esac
}

missing() {
    local entry
    for entry in "${NEEDED[@]}"; do
        there "${entry%%:*}" "${entry#*:}" || echo "${entry%%:*}"
    done
}

# invoke-rc.d asks policy-rc.d before it starts a service; 101 forbids it. One that the machine already has stays.
install_packages() {
    local root=() policy=/usr/sbin/policy-rc.d forbidden=0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "tests/run.sh: needs root or sudo to install: $*" >&2; exit 1; }
        root=(sudo)
    fi
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
        "${root[@]}" chmod 755 $policy
        trap "${root[*]} rm -f $policy" EXIT
        forbidden=1
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    # Not left to the trap: this script ends by becoming cargo.
    if [ "$forbidden" = 1 ]; then
        "${root[@]}" rm -f $policy
        trap - EXIT
    fi
}

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "${LAMPAD_NO_INSTALL:-}" = 1 ]; then
        echo "tests/run.sh: not there, and not to be installed: ${packages[*]}" >&2
        exit 1
    fi
    say "installing, without starting any service: ${packages[*]}"
    install_packages "${packages[@]}"
fi

# Python's gRPC for the example of a custom pusher, in an environment under target/.
venv=target/python
requirements=tests/python/requirements.txt
if ! cmp -s $requirements $venv/installed.txt; then
    say "python environment in $venv"
    python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements $venv/installed.txt
fi

# MySQL 9 runs in a root directory of its own, which takes root's rights. Debian's unstable suite may be out of reach, or between two
# versions; then that is said, and what needs this server is skipped.
if [ "$(id -u)" = 0 ]; then
    mysql9=${LAMPAD_MYSQL9_ROOT:-$PWD/target/mysql9}
    if [ ! -x "$mysql9/usr/sbin/mysqld" ] && [ "${LAMPAD_NO_INSTALL:-}" != 1 ]; then
        say "MySQL 9 in $mysql9"
        tests/mysql9.sh "$mysql9" || say "NO MYSQL 9: tests that need it are skipped"
    fi
    [ ! -x "$mysql9/usr/sbin/mysqld" ] || export LAMPAD_MYSQL9_ROOT=$mysql9
fi

say "building"
# Programs and tests in one build: apart they would want their dependencies with different features, and compile them twice.
cargo build --workspace --bins --tests --examples
say "testing"
# Where a test finds something missing it fails now instead of being skipped.
export LAMPAD_TESTS_COMPLETE=1
if [ "$(id -u)" != 0 ]; then
    export LAMPAD_TESTS_WITHOUT_ROOT=1
    say "NOT ROOT: tests that mount, fill a disk or change users are skipped; run this as root for these:"
    # A test's name stands above what it needs.
    awk '/(^| )fn /{split($0, part, /fn |\(/); name = part[2]} name != "possible" && /needs::root\(\)|!possible\(\)/{print "   " FILENAME ": " name}' tests/tests/*.rs
fi
exec cargo test --workspace "$@"
