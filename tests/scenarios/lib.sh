# What scenarios share; each sources it first. It gives them a scratch folder $T with a home of leat's of its own, buckets,
# a fault proxy, and sentences to assert with; at the end it looks for what was left behind, and cleans up however it ends.
set -euo pipefail
shopt -s inherit_errexit

: "${LEAT:?the program under test: ctest sets it}" "${LEAT_BUILD:?the folder of the build: ctest sets it}"
for variable in S3_ENDPOINT S3_ACCESS_KEY S3_SECRET_KEY SWIFT_AUTH_URL HTTP_ORIGIN DOCKER_HOST GCS_ENDPOINT; do
  variable=LEAT_TEST_$variable
  [ -n "${!variable:-}" ] || {
    echo "$variable is not set: run this as tests/servers/with ceph swift nginx docker gcs -- ctest ... (the servers' packages: scripts/setup)" >&2
    exit 1
  }
done
for command in fusermount3 setpriv unshare fio rsync jq rclone; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || { echo "$command is missing; install it: scripts/setup" >&2; exit 1; }
done
tests=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
LEAT=$(readlink -f "$LEAT") LEAT_BUILD=$(readlink -f "$LEAT_BUILD")
unset "${!AWS_@}" "${!GOOGLE_@}" "${!CLOUDSDK_@}" "${!GCE_@}" STORAGE_EMULATOR_HOST CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY no_proxy \
  NO_PROXY XDG_DATA_HOME XDG_CACHE_HOME XDG_CONFIG_HOME LEAT_CACHE_DIR LEAT_CACHE_SIZE LEAT_MEMORY
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

T=$(mktemp -d "${TMPDIR:-/tmp}/leat-scenario.XXXXXX")
T=$(readlink -f "$T")
chmod 755 "$T"
export LEAT_SCENARIO=$T LEAT_HOME=$T/home HOME=$T/user
mkdir "$HOME"
SECRET=$LEAT_TEST_S3_SECRET_KEY
export S3_ENDPOINT=$LEAT_TEST_S3_ENDPOINT S3_ACCESS_KEY=$LEAT_TEST_S3_ACCESS_KEY S3_SECRET_KEY=$SECRET
export AWS_ENDPOINT_URL=$S3_ENDPOINT AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$SECRET
buckets=() other_buckets=() containers=() gcs_buckets=() status=0 me=$BASHPID
: >"$T/out" >"$T/err"

s3() { "$tests/s3.py" "$@"; }

# bucket: makes one with a random name, in $BUCKET.
bucket() {
  BUCKET=scenario-$(tr -d - </proc/sys/kernel/random/uuid)
  buckets+=("$BUCKET")
  s3 mb "$BUCKET"
}

# other_bucket: the same of another account, in $OTHER_BUCKET; other_s3 ARG...: s3 with that one's keys.
other_s3() { S3_ACCESS_KEY=$LEAT_TEST_S3_OTHER_ACCESS_KEY S3_SECRET_KEY=$LEAT_TEST_S3_OTHER_SECRET_KEY s3 "$@"; }
other_bucket() {
  OTHER_BUCKET=scenario-$(tr -d - </proc/sys/kernel/random/uuid)
  other_buckets+=("$OTHER_BUCKET")
  other_s3 mb "$OTHER_BUCKET"
}

# remotes: an rclone.conf with [swift], [other] (another project), [ceph] and [gcs].
remotes() {
  mkdir -p "$HOME/.config/rclone"
  cat >"$HOME/.config/rclone/rclone.conf" <<CONF
[swift]
type = swift
user_id = $LEAT_TEST_SWIFT_USER_ID
application_credential_id = $LEAT_TEST_SWIFT_CREDENTIAL_ID
application_credential_secret = $LEAT_TEST_SWIFT_CREDENTIAL_SECRET
auth = $LEAT_TEST_SWIFT_AUTH_URL
region = $LEAT_TEST_SWIFT_REGION

[other]
type = swift
application_credential_id = $LEAT_TEST_SWIFT_OTHER_CREDENTIAL_ID
application_credential_secret = $LEAT_TEST_SWIFT_OTHER_CREDENTIAL_SECRET
auth = $LEAT_TEST_SWIFT_AUTH_URL

[ceph]
type = s3
provider = Ceph
access_key_id = $S3_ACCESS_KEY
secret_access_key = $SECRET
endpoint = $S3_ENDPOINT
region = us-east-1

[gcs]
type = google cloud storage
service_account_file = $LEAT_TEST_GCS_KEY_FILE
project_number = $LEAT_TEST_GCS_PROJECT
endpoint = $LEAT_TEST_GCS_ENDPOINT/storage/v1/
bucket_policy_only = true
CONF
}
# container: a name for one in Swift, in $CONTAINER; it is removed at the end.
container() {
  CONTAINER=scenario-$(tr -d - </proc/sys/kernel/random/uuid)
  containers+=("$CONTAINER")
}

# gcs_bucket: a name for one in Google Cloud Storage, in $GCS_BUCKET; it is removed at the end.
gcs_bucket() {
  GCS_BUCKET=scenario-$(tr -d - </proc/sys/kernel/random/uuid)
  gcs_buckets+=("$GCS_BUCKET")
}
# swift_login: a token of Swift's in $TOKEN, and in $STORAGE where the account is.
swift_login() {
  local answer
  answer=$(curl -fsS -D "$T/swift-login" -H 'Content-Type: application/json' "$LEAT_TEST_SWIFT_AUTH_URL/auth/tokens" -d @- <<JSON
{"auth": {"identity": {"methods": ["application_credential"], "application_credential":
  {"id": "$LEAT_TEST_SWIFT_CREDENTIAL_ID", "secret": "$LEAT_TEST_SWIFT_CREDENTIAL_SECRET"}}}}
JSON
  ) || fail "Keystone gives no token"
  TOKEN=$(sed -n 's/^x-subject-token: *//Ip' "$T/swift-login" | tr -d '\r')
  STORAGE=$(jq -r '[.token.catalog[] | select(.type == "object-store").endpoints[] | select(.interface == "public").url][0]' <<<"$answer")
}
# ceph_proxy, swift_proxy: a fault proxy before one of them, in $PROXY and $CONTROL, and a remote [faulty-ceph], [faulty-swift] that
# goes through it ($1: Keystone's URL for that one).
ceph_proxy() {
  proxy
  cat >>"$HOME/.config/rclone/rclone.conf" <<CONF

[faulty-ceph]
type = s3
provider = Ceph
access_key_id = $S3_ACCESS_KEY
secret_access_key = $SECRET
endpoint = $PROXY
region = us-east-1
CONF
}
swift_proxy() {
  swift_login
  proxy "$(cut -d/ -f3 <<<"$STORAGE")"
  cat >>"$HOME/.config/rclone/rclone.conf" <<CONF

[faulty-swift]
type = swift
application_credential_id = $LEAT_TEST_SWIFT_CREDENTIAL_ID
application_credential_secret = $LEAT_TEST_SWIFT_CREDENTIAL_SECRET
auth = ${1:-$LEAT_TEST_SWIFT_AUTH_URL}
storage_url = $PROXY/${STORAGE#*://*/}
CONF
}

# leat_pids: processes of this scenario's leats, jobs not among them.
leat_pids() {
  local environ pid
  for environ in $(grep -lszxF "LEAT_SCENARIO=$T" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${environ#/proc/} pid=${pid%/environ}
    case $(cat "/proc/$pid/comm" 2>/dev/null) in leat*) echo "$pid" ;; esac
  done
}
# The processes by role: the data process of the leat with pid $1.
data_process() {
  local pid
  for pid in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != leat-data ] || echo "$pid"
  done
}

mounts_left() { grep -F " $T/" /proc/self/mountinfo | grep -vF " $T/keep" || true; }

# nothing_left: neither mounts nor processes of leat's, of this scenario.
nothing_left() {
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    [ -n "$(leat_pids)" ] || break
    sleep 0.1
  done
  [ -z "$(leat_pids)" ] || fail "processes are left: $(for p in $(leat_pids); do tr '\0' ' ' <"/proc/$p/cmdline" | head -c 200; echo; done)"
  [ -z "$(mounts_left)" ] || fail "mounts are left: $(mounts_left)"
  [ ! -d "$LEAT_HOME/mnt" ] || [ -z "$(ls -A "$LEAT_HOME/mnt")" ] || fail "left in the home: $(ls "$LEAT_HOME/mnt")"
}

cleanup() {
  local code=$? pid name point
  trap - EXIT INT TERM HUP ERR
  set +e
  [ $code -ne 0 ] || (nothing_left && no_secret_in_home) || code=1
  for pid in $(grep -lszxF "LEAT_SCENARIO=$T" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
    [ "$pid" = "$$" ] || [ "$pid" = "$BASHPID" ] || kill -9 "$pid" 2>/dev/null
  done
  cut -d' ' -f5 /proc/self/mountinfo | grep -F "$T/" | sort -r | while read -r point; do umount -l "$point" || fusermount3 -uz "$point"; done
  for name in "${buckets[@]}"; do s3 rb "$name" >/dev/null || code=1; done
  for name in "${other_buckets[@]}"; do other_s3 rb "$name" >/dev/null || code=1; done
  for name in "${containers[@]}"; do rclone -q purge "swift:$name" 2>/dev/null; rclone -q purge "swift:${name}_segments" 2>/dev/null; done
  for name in "${gcs_buckets[@]}"; do rclone -q purge "gcs:$name" 2>/dev/null; done
  [ -z "${KEEP:-}" ] || { echo "kept: $T" >&2; exit $code; }
  rm -rf "$T" || { sleep 1; rm -rf "$T"; }
  exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'code=$?; [ "$BASHPID" != "$me" ] || echo "line $LINENO of $0 failed with status $code: $BASH_COMMAND" >&2' ERR

# fail TEXT: says so, with what leat said last, and ends the scenario.
fail() {
  local i=1
  while [ "${BASH_SOURCE[$i]:-}" = "${BASH_SOURCE[0]}" ]; do i=$((i + 1)); done
  {
    echo "FAILED at $0:${BASH_LINENO[$((i - 1))]}: $*"
    echo "-- status $status; stdout:"; tail -n 20 "$T/out" | cat -v | cut -c1-300
    echo "-- stderr:"; tail -n 20 "$T/err" | cat -v | cut -c1-500
  } >&2
  exit 1
}

# leat ARG...: runs it; its exit status is in $status, what it said in $T/out and $T/err.
leat() {
  status=0
  "$LEAT" "$@" </dev/null >"$T/out" 2>"$T/err" || status=$?
}
# begin ARG...: runs it in the background, with $T/stdin (a pipe that end_input closes) as stdin; its pid is in $leat.
begin() {
  rm -f "$T/stdin"
  mkfifo "$T/stdin"
  : >"$T/out" >"$T/err"
  # (a shell's background processes ignore Ctrl-C; leat hands that on)
  env --default-signal=INT,QUIT "$LEAT" "$@" <"$T/stdin" >"$T/out" 2>"$T/err" &
  leat=$!
  exec 9>"$T/stdin"
}
end_input() { exec 9>&-; }
# finish: waits for it; its status is in $status.
finish() {
  status=0
  { exec 9>&-; wait "$leat" || status=$?; } 2>/dev/null
}
# expect STATUS [STDERR-REGEX...]: of the last leat; nowhere may it have shown a secret.
expect() {
  local wanted=$1 regex; shift
  [ "$status" = "$wanted" ] || fail "status $status instead of $wanted"
  for regex in "$@"; do grep -Eq -- "$regex" "$T/err" || fail "stderr does not match: $regex"; done
  no_secret "$T/out" "$T/err"
}
# output STDOUT: of the last leat, whole.
output() { [ "$(cat "$T/out")" = "$1" ] || fail "stdout is not: $1"; }
same() { [ "$1" = "$2" ] || fail "${3:-}: \"$1\" is not \"$2\""; }
# A line of the service account's key stands for all of it.
GCS_SECRET=$(jq -r .private_key "$LEAT_TEST_GCS_KEY_FILE" | sed -n 2p)
no_secret() { ! grep -rqsF -e "$SECRET" -e "$GCS_SECRET" -e ya29. -e "$LEAT_TEST_S3_OTHER_SECRET_KEY" -e "$LEAT_TEST_SWIFT_CREDENTIAL_SECRET" "$@" || fail "a secret is in $*"; }
no_secret_in_home() {
  [ -d "$LEAT_HOME" ] || return 0
  no_secret "$LEAT_HOME"
  [ "$(stat -c %a "$LEAT_HOME")" = 700 ] || fail "the home has mode $(stat -c %a "$LEAT_HOME")"
}
# one_line: stderr holds one sentence of leat's and no more.
one_line() {
  [ "$(wc -l <"$T/err")" = 1 ] && grep -q '^leat: ' "$T/err" || fail "stderr is not one line of leat's"
}
# refused REGEX... -- ARG...: leat run ARG... does not start its command, with status 125 and one sentence that matches; nothing stays.
refused() {
  local regexes=()
  while [ "$1" != -- ]; do regexes+=("$1"); shift; done
  shift
  leat run "$@" -- touch "$T/started"
  [ ! -e "$T/started" ] || { rm "$T/started"; fail "the command was started: leat run $*"; }
  expect 125 "${regexes[@]}"
  [ ! -s "$T/out" ] || fail "stdout is not empty"
  one_line
  nothing_left
}

# proxy: a fault proxy before Ceph, in $PROXY; rules LINE... says what it does.
proxy() {
  local ports
  rm -f "$T/ports"
  "$LEAT_BUILD/fault_proxy" "${1:-${S3_ENDPOINT#http://}}" >"$T/ports" </dev/null &
  disown
  wait_for 20 test -s "$T/ports"
  read -r ports CONTROL <"$T/ports"
  PROXY=http://127.0.0.1:$ports
}
rules() { printf '%s\n' "$@" | curl -fsS -X PUT --data-binary @- "http://127.0.0.1:$CONTROL/rules" >/dev/null || fail "the proxy does not take the rules"; }
counts() { curl -fsS "http://127.0.0.1:$CONTROL/counts" | jq ".$1"; }
reset_counts() { curl -fsS -X DELETE "http://127.0.0.1:$CONTROL/counts" >/dev/null; }

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1)) seconds=$1; shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "not within $seconds s: $*"
    sleep 0.05
  done
}
# noise BYTES FILE: the same bytes for the same name, that do not compress.
noise() { openssl enc -aes-128-ctr -K "$(printf %s "${2##*/}" | md5sum | cut -c1-32)" -iv 0 -in /dev/zero 2>/dev/null | head -c "$1" >"$2" || true; }
sum() { sha256sum <"$1" | cut -d' ' -f1; }
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
# as_user: from here on leat runs as somebody who is not root (nobody, where this is root), with a home and a FUSE device of his own.
as_user() {
  export USER_ID
  USER_ID=$(id -u)
  LEAT_PROGRAM=$LEAT
  [ "$USER_ID" = 0 ] || return 0
  USER_ID=65534
  cd "$T"               # he need not be allowed to look into the checkout
  cp "$LEAT" "$T/leat"
  LEAT_PROGRAM=$T/leat
  mknod -m 666 "$T/fuse" c 10 229
  export LEAT_FUSE_DEVICE=$T/fuse LEAT_HOME=$T/user/home
  chown "$USER_ID:$USER_ID" "$HOME"
  printf '#!/bin/sh\nexec setpriv --reuid=%s --regid=%s --clear-groups %s "$@"\n' "$USER_ID" "$USER_ID" "$T/leat" >"$T/as-user"
  chmod 755 "$T/as-user"
  LEAT=$T/as-user
}
