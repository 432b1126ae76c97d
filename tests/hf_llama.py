"""tests/hf_llama.py - LlamaTokenizerFast as the reference had it (transformers 4.34), out of a
SentencePiece model: merges by score, a space mark put before each text, specials cut out first."""
import sentencepiece
from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import BPE


def load(path):
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    pieces = [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())]
    vocab = {p: i for i, (p, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        local = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        local = [(l, r) for l, r in local if l in vocab and r in vocab]
        merges += [(l, r, score) for l, r in sorted(local, key=lambda m: (vocab[m[0]], vocab[m[1]]))]
    merges.sort(key=lambda m: m[2], reverse=True)
    hf = Tokenizer(BPE(vocab, [(l, r) for l, r, _ in merges], unk_token="<unk>", fuse_unk=True,
                       byte_fallback=True))
    hf.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                          normalizers.Replace(" ", "\u2581")])
    hf.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return hf, sp
