"""`python -m keras_sspcab.cli`, the same as `keras-sspcab`."""

from keras_sspcab.cli import main

if __name__ == "__main__":
    main()
