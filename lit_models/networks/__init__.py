"""Parts of networks that more than one method uses: plain modules, which know nothing of training."""
