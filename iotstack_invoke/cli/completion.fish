# Completes tasks, options and their values for: {names}
# It asks the program itself, which reads names on this disk and nothing else.

function __iotstack_complete
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l answer (IOTSTACK_COMPLETE=fish $program --complete -- $words "$token" 2>/dev/null </dev/null)
    set -l code $status
    printf '%s\n' $answer
    if test $code -eq 0
        set -l head (string match -r -- '^--[^=]+=' $token)
        set -l rest (string replace -r -- '^--[^=]+=' '' $token)
        printf "$head%s\n" (__fish_complete_path "$rest")
    end
end

for program in {names}
    complete --command $program --no-files --keep-order --arguments '(__iotstack_complete)'
end
