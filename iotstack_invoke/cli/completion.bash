# Completes tasks, options and their values for: {names}
# It asks the program itself, which reads names on this disk and nothing else.

_iotstack_complete() {
    local line=${COMP_LINE:0:COMP_POINT} text=$2 program=${1/#\~\//$HOME/} answer reply
    COMPREPLY=()
    answer=$(IOTSTACK_COMPLETE=bash IOTSTACK_COMPLETE_TEXT=$text \
        "$program" --complete -- "$line" 2>/dev/null </dev/null) ||
        compopt +o default 2>/dev/null # no names of files either
    while IFS= read -r reply; do
        [[ -n $reply && $reply == "$text"* ]] && COMPREPLY+=("$reply")
    done <<<"$answer"
}

# Old versions of bash sort what is offered.
complete -o nosort -o default -F _iotstack_complete {names} 2>/dev/null ||
    complete -o default -F _iotstack_complete {names}
