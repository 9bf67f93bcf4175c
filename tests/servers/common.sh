# What the server scripts share; sourced by them.
# A server's folder holds a marker, so that stop never removes a folder that is not one, and `pids`, one "PID NAME" a line.

die() { echo "tests/servers/$(basename "$0"): $*" >&2; exit 1; }

# need PACKAGES COMMAND...: says what to install when a command is missing.
need() {
  local packages=$1 command; shift
  for command in "$@"; do
    PATH=$PATH:/usr/sbin command -v "$command" >/dev/null ||
      die "$command is missing; install it with: apt-get install -y --no-install-recommends $packages"
  done
}

# new_folder DIR: makes it absolute in $dir, empty, and marked as ours.
new_folder() {
  [ ! -e "$1/.leat-test-server" ] || die "a server is running in $1 already; stop it first"
  mkdir -p "$1"
  dir=$(cd "$1" && pwd -P)
  [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
  : > "$dir/.leat-test-server"
  : > "$dir/pids"
}

# free_ports N: N ports in a row that nothing listens on, below the range that the kernel gives to outgoing connections; prints
# the first.
free_ports() {
  /usr/bin/python3 - "$1" <<'PY'
import random, socket, sys
n = int(sys.argv[1])
for _ in range(1000):
    first, held = random.randrange(12000, 32000 - n), []
    try:
        for port in range(first, first + n):
            s = socket.socket(); held.append(s)
            s.bind(("127.0.0.1", port))
        print(first)
        break
    except OSError:
        pass
    finally:
        for s in held: s.close()
else:
    sys.exit("no free ports")
PY
}

# daemon NAME COMMAND...: in the background, in a session of its own (a Ctrl-C is not for it), noted in pids.
daemon() {
  local name=$1; shift
  setsid "$@" >"$dir/log/$name.out" 2>&1 </dev/null &
  echo "$! $name" >> "$dir/pids"
}

# wait_until SECONDS COMMAND...: polls; fails when the time is up or a daemon has died.
wait_until() {
  local left=$(( $1 * 50 )) pid name; shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ $left -gt 0 ] || return 1
    while read -r pid name; do
      kill -0 "$pid" 2>/dev/null || { tail -n 5 "$dir/log/$name.out" >&2; return 1; }
    done < "$dir/pids"
    sleep 0.02
  done
}

# stop_folder DIR: ends what pids names (only what still runs with the folder on its command line) and removes the folder.
# Succeeds when there is nothing to stop.
stop_folder() {
  [ -e "$1/.leat-test-server" ] || { [ ! -e "$1" ] || die "$1 is not a folder of ours"; return 0; }
  local folder pid name
  folder=$(cd "$1" && pwd -P)
  while read -r pid name; do
    if tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$folder"; then
      kill -9 "$pid" 2>/dev/null || true
      while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.01; done
    fi
  done < <(tac "$folder/pids" 2>/dev/null)
  rm -rf "$folder"
}

# tls_certificate: a self-signed one for localhost in $dir/tls.{crt,key}; the certificate is its own authority.
tls_certificate() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -keyout "$dir/tls.key" -out "$dir/tls.crt" \
    -addext "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1" 2>/dev/null
}
