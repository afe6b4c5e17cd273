# Runs one server for a test process, and ends it when that process is gone: then our input ends.
# Usage: supervise.sh DIRECTORY. Each line of input is an order, and is echoed when done.
dir=$1
server=
# Whoever gave an order may be gone before it is done; we have still to clean up.
trap '' PIPE

# Runs the command in the file $1 of the directory, an argument a line.
run() {
  file="$dir/$1"
  set --
  while IFS= read -r argument; do
    set -- "$@" "$argument"
  done <"$file"
  exec "$@" </dev/null >>"$dir/log" 2>&1
}

family() {
  echo "$server" $(cat "/proc/$server/task/$server/children")
}

# As a crash does: nothing is said to anybody, and the directory stays as it is.
stop() {
  [ -n "$server" ] || return
  all=$(family)
  kill -KILL $all
  wait "$server"
  tries=0
  for process in $all; do
    # What is no longer our child can't be waited for. A dead process has no program.
    while [ -e "/proc/$process/exe" ] && [ "$tries" -lt 200 ]; do
      sleep 0.05
      tries=$((tries + 1))
    done
  done
  server=
}

while read -r order; do
  case $order in
    create) (run create) || order=ended ;;
    start)
      run start &
      server=$!
      ;;
    stop) stop ;;
    pause) kill -STOP $(family) ;;
    resume) kill -CONT $(family) ;;
  esac 2>>"$dir/log"
  # A server that ended by itself is told as such: nobody need wait for it.
  [ -z "$server" ] || [ -e "/proc/$server/exe" ] || order=ended
  echo "$order" 2>/dev/null
done
stop 2>/dev/null
rm -rf "$dir"
