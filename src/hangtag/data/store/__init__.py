"""Where the bytes of pictures are, decoding them in processes of their own, and keeping the result on disk."""
