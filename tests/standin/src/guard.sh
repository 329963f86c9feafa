# Waits until the stand-in is gone, in whatever way, and kills what it left: the process groups that it named, and each process
# whose environment bears its mark. $1 is the start of the mark.
trap '' HUP INT TERM
groups=' '
while read -r order group; do
  case $order in
  +) groups="$groups$group " ;;
  -) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
  esac
done

marked() {
  for environ in /proc/[0-9]*/environ; do
    if tr '\0' '\n' <"$environ" | grep -q "^$1"; then
      pid=${environ#/proc/}
      echo "${pid%/environ}"
    fi
  done
}

for _ in 1 2 3 4 5 6 7 8 9 10; do
  for group in $groups; do
    kill -s KILL -- "-$group"
  done
  pids=$(marked "$1")
  [ -n "$pids" ] || break
  for pid in $pids; do
    kill -s KILL "$pid"
  done
done
