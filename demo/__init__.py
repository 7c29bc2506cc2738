"""The demo: real GRPO with TRL on the CPU, alone and with extrapolated jumps, side by side.

`python -m demo.run` starts the embedded server, trains, and ends with a table:

    language.py   32 characters and their tokenizer
    task.py       what a task is: questions, right and wrong answers, reward; two-digit sums
    make_base.py  trains the small base model that demo/base/ ships
    evaluate.py   sampled and greedy accuracy on the held-out prompts
    trainer.py    TRL's trainers for a task
    plans.py      the three runs that are compared
    train.py      one of them, in a process of its own
    watch.py      measures it from inside
    server.py     the embedded server beside it
    table.py      what came out
    run.py        all of it
    screenshots.py  the README's pictures, from the run
"""
