"""A controlled experiment: which differences made the run of 2016 stall.

``arms`` says what is compared, ``databases`` and ``nets`` make what a run needs, ``training`` and
``evaluating`` do one run in either engine, ``one_run`` puts them together, ``workers`` does many at
once, ``results`` keeps what they gave.
"""
