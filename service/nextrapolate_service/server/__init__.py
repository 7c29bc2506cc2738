"""The embedded server: Redis, worker and API as the children of one command; and the commands of operators.

    installed.py       the way in, which says what is not installed
    cli.py             `nextrapolate-server`: all in one, or one part of a deployment
    embedded.py        all in one: a private Redis, the workers, the API
    supervisor.py      child processes that belong together; leash.py, none of which outlives its parent
    commands.py        how the parts are called, here and in a deployment
    redis.py           which Redis, and its configuration
    data_folder.py     the folder that holds everything, one server's at a time
    noted_servers.py   where clients on this machine find a server's key
    keys.py, tenants.py, rebuild.py   a command each; store_access.py leads them to a running server's store
    tables.py          tables for people
    errors.py          why the embedded server does not start

Whoever ends the command ends them all, in whichever way.
"""
