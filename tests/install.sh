#!/usr/bin/env bash
# Installs on a Debian machine with Rust what building Lampad needs, or what its tests need too.
#
#   tests/install.sh build|tests
#
# Whatever is installed is not started. LAMPAD_NO_INSTALL=1 installs nothing, and says what is missing. An ordinary user's
# packages are installed with sudo.
set -euo pipefail

# Package, and the program by which we see that it is there.
BUILD=(
    gcc:cc
    # jemalloc, the collector's allocator, comes as C with a makefile.
    make:make
)
TESTS=(
    mariadb-server:mariadbd
    prometheus:promtool
    prometheus-node-exporter:prometheus-node-exporter
    prometheus-mysqld-exporter:prometheus-mysqld-exporter
    systemd:systemd-analyze
    python3-venv:python3
    ethtool:ethtool
    strace:strace
    openssl:openssl
    curl:curl
    # libFuzzer is C++, see collector/fuzz.
    g++:c++
)
case ${1:-} in
build) NEEDED=("${BUILD[@]}") ;;
tests) NEEDED=("${BUILD[@]}" "${TESTS[@]}") ;;
*)
    echo "tests/install.sh: say for what: build or tests" >&2
    exit 2
    ;;
esac

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
    local root=() policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "tests/install.sh: needs root or sudo to install: $*" >&2; exit 1; }
        root=(sudo)
    fi
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
        "${root[@]}" chmod 755 $policy
        trap "${root[*]} rm -f $policy" EXIT
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "${LAMPAD_NO_INSTALL:-}" = 1 ]; then
    echo "tests/install.sh: not there, and not to be installed: ${packages[*]}" >&2
    exit 1
fi
echo "== installing, without starting any service: ${packages[*]}"
install_packages "${packages[@]}"
