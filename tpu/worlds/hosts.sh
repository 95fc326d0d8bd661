# shellcheck shell=bash disable=SC2034 # pod.sh uses known_hosts
# Machines that are there already, however they were made (GKE nodes, a reservation, a colleague's slice): POD_HOST_LIST names them.

: "${POD_HOST_LIST:?set POD_HOST_LIST, addresses with blanks between them}"

# The user's own list of known hosts may have these.
known_hosts=
remains() { echo "pod.sh: the machines $POD_HOST_LIST stay, and may cost money until whoever made them gives them back" >&2; }

world_create() { echo "pod.sh: these machines are not ours to create" >&2; return 1; }
world_wait() { return 0; }
world_hosts() { tr ' ' '\n' <<< "$POD_HOST_LIST"; }
world_delete() { echo "pod.sh: these machines are not ours to delete; whoever made them must" >&2; return 1; }
