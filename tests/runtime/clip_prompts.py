"""Two hundred prompts that tokenizers get wrong."""

_WORDS = (
    "a photo of an astronaut riding a horse on mars, highly detailed, 8k, trending on artstation, unreal engine, "
    "masterpiece, best quality, ultra-realistic, cinematic lighting, depth of field"
)
_HAND_WRITTEN = [
    # Nothing, and what only looks like nothing.
    "", " ", "  ", "\t", "\n", " \n\t ", "\u00a0", "\u200b", "\u2003", "\ufeff", "\u3000", "\x00", "\x1f", "\x7f",
    # White space around and inside.
    " a", "a ", "  a   b  ", "a\nb", "a\tb", "a\r\nb", "a\u00a0b", "a\u2028b", "a\u200bb", "a\u3000b", "\vx\f",
    # Case, with letters whose lower case is longer or depends on its neighbours.
    "RED Ball", "İstanbul", "STRASSE straße ẞ", "ΣΊΣΥΦΟΣ", "ǅ Ǆ ǆ", "ﬀ ﬁ ﬂ ﬃ", "Ⅷ ⅷ", "ＦＵＬＬ　ｗｉｄｔｈ",
    # Accents, composed and not.
    "café", "cafe\u0301", "naïve façade", "Ångström Å A\u030a", "ñandú", "Tiếng Việt", "žluťoučký kůň", "e\u0301\u0302",
    "ſ ſ\u0307", "\u0301 alone", "q\u0323\u0307", "q\u0307\u0323", "Zürich, Köln", "œuvre Œ æ Æ ø Ø đ Đ ł Ł þ Þ ð",
    # Contractions, with straight and curly quotes.
    "it's", "don't", "I'm you're we've they'll he'd", "IT'S DON'T", "it’s don’t", "'s", "''s", "rock'n'roll", "'tis",
    "o'clock", "dogs' bones", "s's's", "'S 'T 'RE", "\"quoted\"", "‘single’ “double”",
    # Numbers: every digit is a token of its own.
    "1234567890", "3.14159", "1,000,000", "8k 4K 1080p", "2x4", "x² y₂ ½ ¾", "٣٤٥", "一二三", "Ⅳ", "1e-5", "+1 -1 ±1",
    "0", "007", "1st 2nd 3rd", "v1.5", "#1", "50%", "$9.99", "€5 £5 ¥5",
    # Punctuation.
    "!", "!!!", "?!?!", "...", "…", "a.b,c;d:e", "(a:1.2)", "((masterpiece))", "[low quality]", "{a|b}", "<lora:x:0.8>",
    "a-b a–b a—b", "a_b", "a/b\\c", "a@b.c", "https://example.org/?q=1&r=%20", "~`!@#$%^&*()_+-=[]{}|;':\",./<>?",
    "&amp; &lt;b&gt;", "<b>bold</b>", "--ar 16:9 --v 5", "a,b,c,,,d", "•·° ™®©", "→ ← ↔ ⇒", "∀x∈ℝ: x²≥0", "\\n \\t",
    # Special tokens, whole and broken.
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|startoftext|>a<|endoftext|>", "<|ENDOFTEXT|>",
    "<|endoftext", "endoftext|>", "<end_of_text>", "</w>", "red</w>", "Ġred", "a<|endoftext|>b<|startoftext|>",
    # Emoji, with modifiers, joiners and flags.
    "🙂", "🙂🙂🙂", "a🙂b", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "☀️ ☀ ☀︎", "1️⃣ #️⃣", "❤️‍🔥", "𝓯𝓪𝓷𝓬𝔂", "🫠🫨", "😀red😀",
    # Other scripts.
    "红色的圆", "赤い円と紺色の背景", "カタカナ ｶﾀｶﾅ", "がか\u3099", "한국어 각", "각", "Привет, мир", "Ёлка ё е\u0308",
    "Ελληνικά άλφα", "עברית שלום", "שָׁלוֹם", "العربية مرحبا", "ﷺ", "हिन्दी नमस्ते", "ภาษาไทย", "தமிழ்", "ქართული",
    "Հայերեն", "ᏣᎳᎩ", "አማርኛ", "ကမ္ဘာ", "བོད་སྐད་", "𐍈𐌰𐌹", "龘𠀀𪚥", "中文 and English 混合 text", "。、！？「」", "１２３",
    # What people really type.
    "gold circle with navy background", "a cat, (sitting:1.3), [dog], <lora:style:1>", "1girl, solo, smile :)", "xD",
    "portrait of Frida Kahlo, by René Magritte", "Beyoncé at the Louvre, Paris, 1920s", "T-shirt 'n' jeans", "U.S.A.",
    "C++ & C# code", "H2O, CO₂ and E=mc²", "5 o'clock @ Joe's", "rock&roll", "mother-in-law's", "24/7", "10:30pm",
    "f/1.8, 50mm, ISO 100", "#art #sunset", "@user: hi!!", "No. 5", "isn't it?no", "he said:\"don't\"", "100km/h",
    # Words in a row.
    _WORDS, _WORDS.upper(), f"{_WORDS}. " * 3, "antidisestablishmentarianism", "supercalifragilisticexpialidocious",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "qwxzjkvbp", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a  gold,circle;with navy\nbackground!", "hello world 123abc abc123 a1b2c3",
    # Long: 300 words, 300 digits, one word of 500 letters, exactly as many tokens as fit and one more.
    " ".join(f"word{n}" for n in range(300)), "red " * 300, "7" * 300, "x" * 500, "🙂" * 100, "é" * 200, "中" * 150,
    "red " * 74, "red " * 75, "red " * 76, "a " * 74 + "blue", "!" * 76, ("red, " * 37) + "blue", "don't " * 40,
]  # fmt: skip
PROMPTS = tuple(_HAND_WRITTEN)
