# Sourced by bash before a block of a page, with no program on its PATH: each command that a block starts is written
# down instead, and succeeds. Words are separated by U+001F, commands end with U+001E. A command is one write: those of a
# pipeline run at the same time. See tests/unit/test_guide_blocks.py.
command_not_found_handle() {
    local IFS=$'\x1f'
    printf '%s\x1e' "$*" >>"$REHEARSAL"
    case "$*" in
        # Something to loop over.
        $'docker\x1fvolume\x1fls'*) echo dify-production-data ;;
    esac
}
