# shellcheck shell=bash disable=SC2154 # pod.sh sets create_options
# Compute Engine: a managed instance group of TPU machines. Serves the newer chips.

: "${POD_ZONE:?set POD_ZONE}" "${POD_TEMPLATE:?set POD_TEMPLATE, an instance template with a TPU machine type}" "${POD_HOSTS:?set POD_HOSTS, the number of machines}"

world_create() {
  run gcloud compute instance-groups managed create "$POD_NAME" --zone "$POD_ZONE" --template "$POD_TEMPLATE" \
    --size "$POD_HOSTS" ${POD_POLICY:+--workload-policy="$POD_POLICY"} "${create_options[@]}"
}

world_wait() {
  # In the background, since bash hears a signal only between commands; a group of its own, see everywhere() in pod.sh.
  set -m
  run gcloud compute instance-groups managed wait-until "$POD_NAME" --zone "$POD_ZONE" --stable --timeout "${POD_WAIT_LIMIT:-43200}" < /dev/null &
  set +m
  wait $!
}

world_hosts() {
  run gcloud compute instances list --filter="metadata.items.created-by~/$POD_NAME\$" --format='value(networkInterfaces[0].accessConfigs[0].natIP)' | sort
}

world_delete() { run gcloud compute instance-groups managed delete "$POD_NAME" --zone "$POD_ZONE" --quiet; }
