#!/usr/bin/env bash
# Rent, start, follow, stop and delete a TPU slice. See tpu/README.md.
#
#   tpu/pod.sh [--dry-run] [--settings FILE] COMMAND [ARGUMENTS]
#
#   create            ask for the slice                    (costs money once it is there)
#   wait              until it is there
#   hosts             print its workers' addresses
#   copy BINARY YAML [FILE …]  to every worker; more files under their own names, such as a compiled program
#   launch [KEY=VALUE …]  pretrain on every worker; model_dir is one folder that all of them share
#   follow            the workers' logs, each line with its worker
#   doctor [KEY=VALUE …]  simclr doctor on every worker, with the buckets of the run
#   stop              SIGTERM everywhere: all save at one step and end
#   delete            give the slice back
#   up BINARY YAML [FILE …] [KEY=VALUE …]   create, wait, copy, launch
#
# Settings come from FILE (default: pod.env here), lines NAME=VALUE; --dry-run prints every command and runs none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

dry=
settings=pod.env
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=yes; shift ;;
    --settings) settings=${2:?--settings needs a file}; shift 2 ;;
    -*) echo "pod.sh: unknown option $1; see the head of $0" >&2; exit 2 ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2; }
[ -f "$settings" ] || { echo "pod.sh: no settings in $settings; copy $here/pod.env.example there and edit it" >&2; exit 2; }
# Without a slash `.` would search PATH first.
[[ $settings == */* ]] || settings=./$settings
# shellcheck source=pod.env.example
. "$settings"
: "${POD_NAME:?$settings must set POD_NAME}" "${POD_WORLD:?$settings must set POD_WORLD}"
POD_FOLDER=${POD_FOLDER:-simclr-run}
POD_DEATHS=${POD_DEATHS:-3}
# Of an option that is given twice ssh takes the first: the user's words go before ours.
read -ra ssh_options <<< "${POD_SSH_OPTIONS:-} -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=accept-new"
# shellcheck disable=SC2034 # used by the worlds
read -ra create_options <<< "${POD_CREATE_OPTIONS:-}"

# Prints a command, and runs it unless this is a dry run.
run() {
  { printf '+'; printf ' %q' "$@"; printf '\n'; } >&2
  [ -n "$dry" ] || "$@"
}

fail() { echo "pod.sh: $*" >&2; exit 1; }

# Said whenever something goes wrong while a slice may be there, and when its run is stopped.
remains() {
  printf 'pod.sh: the slice %s may exist and cost money; give it back with: %q --settings %q delete\n' "$POD_NAME" "$0" "$settings" >&2
}

# Keys of rented workers' hosts, apart from the user's own: addresses come back with other machines behind them.
known_hosts=${settings%/*}/$POD_NAME.known_hosts
forget() { if [ -n "$known_hosts" ]; then run rm -f "$known_hosts"; fi; }

# Ends what still runs for us, and says what may remain.
interrupted() {
  trap '' INT TERM HUP
  local id
  # Workers' jobs are process groups, see everywhere().
  for id in $(jobs -p); do kill -- "-$id" 2>/dev/null || kill "$id" 2>/dev/null || true; done
  echo "pod.sh: interrupted" >&2
  remains
  exit 130
}

case ${POD_SPOT:-} in
  yes | '') ;;
  no) POD_SPOT= ;;
  *) fail "POD_SPOT is $POD_SPOT; expected yes or no" ;;
esac

case $POD_WORLD in
  tpu-vm | compute-engine | hosts)
    # shellcheck source=worlds/tpu-vm.sh
    . "$here/worlds/$POD_WORLD.sh" ;;
  *) fail "POD_WORLD is $POD_WORLD; expected tpu-vm, compute-engine or hosts" ;;
esac

# ssh takes quotes around a path with blanks.
[ -z "$known_hosts" ] || ssh_options+=(-o "UserKnownHostsFile=\"$known_hosts\"")

# The addresses, one a line; a stand-in where a dry run did not ask for them.
hosts() {
  local list
  list=$(world_hosts) || return 1
  if [ -n "$dry" ] && [ -z "$list" ]; then list=WORKER; fi
  echo "$list"
}

# ssh to a worker. The first word after the host is what runs there.
on() { run ssh "${ssh_options[@]}" "${POD_USER:+$POD_USER@}$1" "$2"; }

# Runs a command on all workers at once; fails if it fails on any, and says on which.
everywhere() {
  local host list bad=0
  list=$(hosts) || return 1
  [ -n "$list" ] || { echo "pod.sh: the slice has no workers yet" >&2; return 1; }
  local -a ids=() names=()
  # Job control: each is a group of its own, which can be ended with all it has started.
  set -m
  for host in $list; do
    "$@" "$host" < /dev/null &
    ids+=($!) names+=("$host")
  done
  set +m
  for i in "${!ids[@]}"; do
    wait "${ids[$i]}" || { echo "pod.sh: it failed on ${names[$i]}" >&2; bad=1; }
  done
  return $bad
}

copy_to() {
  local host=${!#}
  on "$host" "mkdir -p $POD_FOLDER" &&
    run scp -q "${ssh_options[@]}" "$1" "${POD_USER:+$POD_USER@}$host:$POD_FOLDER/simclr" &&
    run scp -q "${ssh_options[@]}" "$2" "${POD_USER:+$POD_USER@}$host:$POD_FOLDER/run.yaml" &&
    { [ $# -le 3 ] || run scp -q "${ssh_options[@]}" "${@:3:$#-3}" "${POD_USER:+$POD_USER@}$host:$POD_FOLDER/"; } &&
    on "$host" "cd $POD_FOLDER && ./simclr plugins install tpu"
}

# On a worker: whether a run is there.
there="[ -e pid ] && kill -0 \$(cat pid) 2>/dev/null"

# What runs on a worker: exit code 75 means "saved, start me again", unless somebody wants it to stop. A run that was killed (memory ran
# out, kill -9) or that a plugin aborted is started again, too, since the others wait for it; but so many times only, because what kills it
# again and again costs money. Whether it runs is looked at after a while, because a program that cannot start ends at once.
launch_on() {
  local host=${!#} words=
  [ $# -le 1 ] || words=$(printf ' %q' "${@:1:$#-1}")
  local killed="deaths=\$((deaths + 1)); if [ \$deaths -gt $POD_DEATHS ]; then \
echo \"pod.sh: the run was killed \$deaths times and is not started again\" >&2; break; fi; \
echo \"pod.sh: the run was killed; start \$deaths of $POD_DEATHS after that\" >&2"
  local loop="deaths=0; while [ ! -e stop ]; do ./simclr pretrain --config run.yaml$words; code=\$?; \
case \$code in 75) ;; 134 | 135 | 137 | 139) $killed ;; *) break ;; esac; [ -e stop ] || sleep 5; done; \
echo \"pod.sh: the run is over (exit code \$code); its machines cost money until they are given back\" >&2"
  on "$host" "cd $POD_FOLDER || exit 1; if $there; then echo 'a run is there already; stop it first' >&2; exit 1; fi; rm -f stop pid; \
nohup bash -c $(printf %q "echo \$\$ > pid; $loop; rm -f pid") >> log.txt 2>&1 < /dev/null & \
sleep ${POD_LAUNCH_SECONDS:-5}; $there || { echo 'the run is over already; the end of its log:' >&2; tail -n 20 log.txt >&2; exit 1; }"
}

follow_on() { on "$1" "tail -n 20 -F $POD_FOLDER/log.txt" | sed -u "s/^/[$1] /"; }
doctor_on() {
  local host=${!#} words=
  [ $# -le 1 ] || words=$(printf ' %q' "${@:1:$#-1}")
  on "$host" "cd $POD_FOLDER && ./simclr doctor --config run.yaml$words" | sed -u "s/^/[$host] /"
}
# A moment before the program starts there is nothing to signal yet, so it is tried again.
stop_on() {
  on "$1" "cd $POD_FOLDER && touch stop || exit 1; if $there; then for try in 1 2 3 4 5; do \
pkill -TERM -P \$(cat pid) && exit 0; $there || exit 0; sleep 1; done; exit 1; else echo 'no run there'; fi"
}

need_files() {
  [ $# -ge 2 ] || fail "name the binary and the YAML file"
  local file
  for file in "$@"; do [ -f "$file" ] || fail "$file is not there"; done
}

create() { forget; world_create || { remains; fail "the slice could not be asked for"; }; }
wait_for() { world_wait || { remains; fail "the slice did not come"; }; }
copy() { need_files "$@"; everywhere copy_to "$@" || { remains; fail "copying failed"; }; }
launch() { everywhere launch_on "$@" || { remains; fail "launching failed"; }; }

stop() {
  everywhere stop_on || { remains; fail "not stopped everywhere"; }
  echo "pod.sh: what runs saves and ends; its log says when (follow)" >&2
  remains
}
delete() { world_delete || { remains; fail "the slice could not be deleted"; }; forget; }

command=$1; shift
[ -n "$dry" ] || trap interrupted INT TERM HUP
case $command in
  create) create ;;
  wait) wait_for ;;
  hosts) hosts ;;
  copy) copy "$@" ;;
  launch) launch "$@" ;;
  follow) everywhere follow_on ;;
  doctor) everywhere doctor_on "$@" ;;
  stop) stop ;;
  delete) delete ;;
  up)
    files=()
    while [ $# -gt 0 ] && [[ $1 != *=* ]]; do files+=("$1"); shift; done
    need_files "${files[@]}"
    for word in "$@"; do [[ $word == *=* ]] || fail "$word: files go before KEY=VALUE"; done
    create; wait_for; copy "${files[@]}"; launch "$@"
    ;;
  *) fail "unknown command $command; see the head of $0" ;;
esac
