# Completion of leat for bash: commands and options; files where a path may stand.
_leat() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]:-} i
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W 'run mount unmount ls stat cat du cache doctor version' -- "$word")
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    # What stands behind "--" is the job's command line.
    if [ "${COMP_WORDS[i]}" = -- ]; then
      mapfile -t COMPREPLY < <(if [ $((i + 1)) -eq "$COMP_CWORD" ]; then compgen -c -- "$word"; fi; compgen -f -- "$word")
      return
    fi
  done
  case $command:$word in
    run:-*) mapfile -t COMPREPLY < <(compgen -W '-m --env --name --workdir --memory --cache-size --strict --pid --dry-run
      --quiet --stats --' -- "$word") ;;
    cache:*) mapfile -t COMPREPLY < <(compgen -W 'stat clean' -- "$word") ;;
    ls:-*|stat:-*|du:-*) mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$word"; compgen -W 's3:// https:// file://' -- "$word") ;;
  esac
}
complete -o filenames -F _leat leat
