"""`python -m timm_alfa`: the same as `timm-alfa`."""

from timm_alfa.commands import main

if __name__ == '__main__':
    main()
