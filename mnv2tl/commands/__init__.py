"""The sub-commands of `mnv2tl`, one file each: parse, import late, call one function, print."""
