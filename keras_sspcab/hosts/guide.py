"""What helps to choose a host."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class HostGuide:
    """What a host is for, what it takes and what it gives.

    What has not been measured is left empty.

    Attributes:
        purpose: What it is good at, in a few words.
        training_time: What training takes on two CPU cores, and of what;
            unless it says otherwise at the settings of the command line, for
            about 300 images.
        expectation: What it has reached, and of what.
        needs_gpu: Whether the settings of the command line take too long
            without a GPU to be of use.
    """

    purpose: str = ""
    training_time: str = ""
    expectation: str = ""
    needs_gpu: bool = False
