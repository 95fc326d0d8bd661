# shellcheck shell=bash disable=SC2154 # pod.sh sets create_options
# The Cloud TPU API: queued resources. Serves v2 to v6e.

: "${POD_ZONE:?set POD_ZONE}" "${POD_TYPE:?set POD_TYPE, such as v3-8}" "${POD_RUNTIME:?set POD_RUNTIME, the runtime version for this chip}"

world_create() {
  run gcloud compute tpus queued-resources create "$POD_NAME" --node-id "$POD_NAME" --zone "$POD_ZONE" \
    --accelerator-type "$POD_TYPE" --runtime-version "$POD_RUNTIME" ${POD_SPOT:+--spot} "${create_options[@]}"
}

world_wait() {
  local state tries=0
  [ -z "$dry" ] || { run gcloud compute tpus queued-resources describe "$POD_NAME" --zone "$POD_ZONE" --format='value(state.state)'; return; }
  while :; do
    state=$(run gcloud compute tpus queued-resources describe "$POD_NAME" --zone "$POD_ZONE" --format='value(state.state)') || return 1
    echo "pod.sh: $POD_NAME is $state" >&2
    case $state in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING) return 1 ;;
    esac
    tries=$((tries + 1))
    [ "$tries" -lt "${POD_WAIT_TRIES:-1440}" ] || return 1
    # In the background, so that a signal need not wait for its end.
    sleep "${POD_WAIT_SECONDS:-30}" & wait $!
  done
}

world_hosts() {
  run gcloud compute tpus tpu-vm describe "$POD_NAME" --zone "$POD_ZONE" \
    --format='value(networkEndpoints[].accessConfig.externalIp)' | tr ';' '\n'
}

world_delete() { run gcloud compute tpus queued-resources delete "$POD_NAME" --zone "$POD_ZONE" --force --quiet; }
