#compdef {names}
# Completes tasks, options and their values for: {names}
# It asks the program itself, which reads names on this disk and nothing else.

_iotstack_complete() {
    local answer line code
    local -a offers
    answer=$(IOTSTACK_COMPLETE=zsh ${~${(Q)words[1]}} --complete -- \
        "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)
    code=$?
    for line in ${(f)answer}; do
        offers+=("${${line//:/\\:}/$'\t'/:}")
    done
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    _describe -V 'value' offers || { (( code == 0 )) && _files }
}

(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
if [[ $funcstack[1] == _iotstack ]]; then
    _iotstack_complete "$@"
else
    compdef _iotstack_complete {names}
fi
